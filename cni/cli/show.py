"""`pycni show`: print attachments as a tree or as JSON.

rich is imported in functions: with --json it is not needed.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cni.cli.output import console, print_error, print_json, printable, show_broken, warn
from cni.cli.settings import DEFAULT_IFNAME, NETNS_FOLDER, container_id
from cni.dns import records
from cni.errors import CniError, Code
from cni.runtime import remains
from cni.runtime.cache import DEFAULT_FOLDER
from cni.runtime.chain import Runtime
from cni.runtime.conflists import Broken, load_all
from cni.runtime.inventory import Inventory, take
from cni.runtime.lint import list_warnings
from cni.state.files import write_atomic

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

    from cni.cli.settings import Settings
    from cni.dns.names import Record
    from cni.operations.garbage import Stale
    from cni.runtime.network import Network
    from cni.runtime.observe import Attached, HostLink, PublishedPort

LEASES_FOLDER = DEFAULT_FOLDER / "networks"
_DELETE_BY_RUNTIME = "delete it with its runtime; pycni gc {} removes it and all others"
_NETNS_STYLES = {"alive": "green", "gone": "red", "unknown": "yellow"}


def run(settings: Settings, only: str, *, as_json: bool, picture: str = "") -> None:
    """Print the attachments of all networks or of one, and draw them to the file `picture`.

    Raises CniError 7 if there is no such network, 5 if the file cannot be written.
    """
    configured = load_all(settings.conf_folder)
    networks = [each for each in configured if not isinstance(each, Broken)]
    broken = [each for each in configured if isinstance(each, Broken)]
    inventories = _take(Runtime(settings.path, settings.env), networks, only)
    if only and not inventories:
        raise CniError(
            Code.INVALID_CONFIG, f'there is no network "{only}"', 'Run "pycni networks" for a list.'
        )
    if picture:
        from cni.cli.picture import draw

        write_atomic(Path(picture), draw(inventories).encode(), 0o644)
    if as_json:
        print_json(
            {"networks": [show_inventory(each) for each in inventories], "broken": show_broken(broken)}
        )
        return
    for each in broken:
        print_error(each.error)
    if not inventories:
        console().print(f"No networks are configured in {settings.conf_folder} and nothing is attached.")
    for inventory in inventories:
        console().print(_tree(inventory))
        for line in inventory.warnings:
            warn(inventory.name, line)


def _take(runtime: Runtime, networks: list[Network], only: str) -> list[Inventory]:
    """Return attachments, plugins' reports of failed attachments, and warnings about the network's file."""
    entries = runtime.cache.list_entries()
    things: dict[str, list[Stale]] = {}
    warnings: dict[str, list[str]] = {}
    for network in networks:
        if network.name in things or only not in {"", network.name}:
            continue
        things[network.name] = []
        warnings[network.name] = list_warnings(runtime, network, networks)
        try:
            plan = remains.ask(runtime, network, entries)
            things[network.name] = list(plan.things)
            warnings[network.name] += map(str, plan.missing)
        except CniError as error:
            warnings[network.name].append(str(error))
    published: dict[tuple[str, ...], Record] = {each.key: each for each in records.list_all()}
    return [
        replace(
            each,
            warnings=tuple(warnings.get(each.name, ())),
            attached=tuple(
                _with_names(
                    _with_remedy(each.name, attached),
                    published.get((each.name, attached.container_id, attached.ifname)),
                )
                for attached in each.attached
            ),
        )
        for each in take(networks, entries, LEASES_FOLDER, things)
        if only in {"", each.name}
    ]


def _with_names(attached: Attached, record: Record | None) -> Attached:
    if record is None:
        return attached
    return replace(attached, published_names=record.names, upstreams=record.upstreams)


def _with_remedy(network: str, attached: Attached) -> Attached:
    """Add the command that removes an attachment without a result."""
    if remains.UNCACHED not in attached.problems:
        return attached
    folder = Path(NETNS_FOLDER)
    names = sorted(each.name for each in folder.iterdir()) if folder.is_dir() else []
    name = next((each for each in names if container_id(f"{folder}/{each}") == attached.container_id), "")
    ifname = "" if attached.ifname in {"", DEFAULT_IFNAME} else f" -i {attached.ifname}"
    if name:
        return replace(attached, remedy=f"pycni del {network} {name}{ifname}")
    # If the namespace is in use and its name is unknown, only the runtime knows whether to delete it.
    is_alive = attached.netns_state == "alive"
    remedy = _DELETE_BY_RUNTIME.format(network) if is_alive else f"pycni gc {network} --dead-only"
    return replace(attached, remedy=remedy)


def show_inventory(inventory: Inventory) -> dict[str, Any]:
    """Return the JSON of one network."""
    return {
        "name": inventory.name,
        "cniVersion": inventory.cni_version,
        "file": inventory.file,
        "subnets": list(inventory.subnets),
        "bridges": [_link_json(each) for each in inventory.bridges],
        "attachments": [_attached_json(each) for each in inventory.attached],
        "warnings": list(inventory.warnings),
    }


def _link_json(link: HostLink) -> dict[str, Any]:
    return {
        "name": link.name,
        "exists": link.is_there,
        "up": link.is_up,
        "master": link.master,
        "addresses": list(link.addresses),
    }


def _attached_json(attached: Attached) -> dict[str, Any]:
    return {
        "containerID": attached.container_id,
        "ifname": attached.ifname,
        "podNamespace": attached.pod_namespace,
        "podName": attached.pod_name,
        "containerName": attached.container_name,
        "netns": attached.netns,
        "netnsState": attached.netns_state,
        "addresses": list(attached.addresses),
        "mac": attached.mac,
        "mtu": attached.mtu,
        "hostLink": _link_json(attached.host_link) if attached.host_link else None,
        "ports": [
            {
                "protocol": each.protocol,
                "hostIP": each.host_ip,
                "hostPort": each.host_port,
                "containerPort": each.container_port,
                **({"allowFrom": list(each.allow_from)} if each.allow_from else {}),
            }
            for each in attached.ports
        ],
        "names": list(attached.published_names),
        "upstreams": list(attached.upstreams),
        "problems": list(attached.problems),
        "remains": list(attached.remains),
        "remedy": attached.remedy,
    }


def _tree(inventory: Inventory) -> Tree:
    """Return the tree network, bridge, container, link; without a bridge a container is below the network."""
    from rich.tree import Tree

    file = inventory.file or "not configured here"
    tree = Tree(
        _text(
            (inventory.name, "bold"),
            (inventory.cni_version, ""),
            (", ".join(inventory.subnets), "cyan"),
            (file, "dim"),
        )
    )
    branches = {"": tree}
    for bridge in inventory.bridges:
        branches[bridge.name] = tree.add(_bridge_text(bridge))
    containers: dict[tuple[str, str], Tree] = {}
    for each in inventory.attached:
        bridge_name = each.host_link.master if each.host_link else ""
        key = (bridge_name, each.container_id)
        if key not in containers:
            containers[key] = branches.get(bridge_name, tree).add(_container_text(each))
        _add_attached(containers[key], each)
    if not inventory.attached:
        tree.add(_text(("nothing is attached", "dim")))
    return tree


def _bridge_text(bridge: HostLink) -> Text:
    if not bridge.is_there:
        return _text(("bridge", ""), (bridge.name, "bold"), ("does not exist yet", "dim"))
    state = ("up", "green") if bridge.is_up else ("down", "red")
    return _text(("bridge", ""), (bridge.name, "bold"), (" ".join(bridge.addresses), "cyan"), state)


def _container_text(attached: Attached) -> Text:
    style = _NETNS_STYLES[attached.netns_state]
    pod = f"pod {attached.pod_namespace}/{attached.pod_name}" if attached.pod_name else ""
    return _text(
        (pod or attached.container_name, "bold"),
        (attached.container_id, "bold"),
        (attached.netns, ""),
        (f"netns {attached.netns_state}", style),
    )


def _add_attached(branch: Tree, attached: Attached) -> None:
    host_end = f"host end {attached.host_link.name}" if attached.host_link else ""
    link = branch.add(
        _text(
            (attached.ifname, "bold"),
            (" ".join(attached.addresses), "cyan"),
            (attached.mac, ""),
            (f"mtu {attached.mtu}" if attached.mtu else "", ""),
            (host_end, ""),
        )
    )
    for port in attached.ports:
        link.add(_text((_port_text(port), "magenta")))
    if attached.published_names:
        link.add(_text((f"names: {', '.join(attached.published_names)}", "cyan")))
    if attached.upstreams:
        link.add(_text((f"other names from: {', '.join(attached.upstreams)}", "cyan")))
    for problem in attached.problems:
        link.add(_text((problem, "red")))
    for each in attached.remains:
        link.add(_text((f"remains: {each}", "yellow")))
    if attached.remedy:
        link.add(_text((f"remedy: {attached.remedy}", "bold")))


def _port_text(port: PublishedPort) -> str:
    address = f"[{port.host_ip}]" if ":" in port.host_ip else port.host_ip or "*"
    clients = f" from {', '.join(port.allow_from)}" if port.allow_from else ""
    return f"{port.protocol} {address}:{port.host_port} -> {port.container_port}{clients}"


def _text(*parts: tuple[str, str]) -> Text:
    """Join styled parts to a line; skip empty ones."""
    from rich.text import Text

    shown = [(printable(text), style) for text, style in parts if text]
    return Text("  ").join(Text(text, style=style) for text, style in shown)
