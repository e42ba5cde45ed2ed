"""The state that a release leaves on a node for some attachments: recorded once, restored on any host.

    python -m tests.support.release_state BINDIR COMMAND FOLDER

records what the plugins in BINDIR, called by the release's command `pycni`, leave for the networks below. The
folder then has files, links, settings and rules as text. What belongs to the machine is replaced by words:
the boot's ID, the numbers of namespaces and of the folder with nftables records.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cni.testing import Host, Sandbox
from cni.testing.namespaces import write_sysctls
from tests.support import scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Json = dict[str, Any]

PORT = 80
# Container: network, published port.
CONTAINERS = {"c1": ("web", 8080), "c2": ("web", 0), "c3": ("old", 8081), "c4": ("flat", 0)}
_RULES = {
    "ruleset.nft": ["nft", "list", "ruleset"],
    "iptables": ["iptables-nft-save"],
    "ip6tables": ["ip6tables-nft-save"],
}
_OF_IPTABLES = re.compile(r"(?ms)^table (ip|ip6) (filter|nat|mangle|raw|security) \{\n.*?^\}\n")
_FOLDERS = ("/run/pycni", "/var/lib/cni", "/etc/cni/net.d")
_RECORDS = "/run/pycni/nftables"
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_SETTINGS = {"ipv4": ["arp_notify", "route_localnet"], "ipv6": ["accept_dad", "disable_ipv6", "accept_ra"]}
_FORWARDING = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"]


def networks() -> dict[str, Json]:
    """Return the networks by name: nftables and iptables of both families, and one without addresses."""
    return {
        "web": _network("web", "1.1.0", "nftables", 8),
        "old": _network("old", "1.0.0", "iptables", 9),
        "flat": {
            "cniVersion": "0.4.0",
            "name": "flat",
            "plugins": [{"type": scene.INTERFACE, "bridge": "flat0", "portIsolation": True, "mtu": 1400}],
        },
    }


def _network(name: str, version: str, backend: str, number: int) -> Json:
    ranges = [[{"subnet": f"10.{number}.0.0/24"}], [{"subnet": f"fd0{number}::/64"}]]
    bridge = {
        "type": scene.INTERFACE, "bridge": f"{name}0", "isDefaultGateway": True, "hairpinMode": True,
        "ipMasq": True, "ipMasqBackend": backend, "macspoofchk": True,
        "ipam": {"type": scene.IPAM, "ranges": ranges},
    }  # fmt: skip
    # In the order of keys that the recording has.
    portmap = {"type": scene.PORTS, "backend": backend, "capabilities": {"portMappings": True}}
    return {"cniVersion": version, "name": name, "plugins": [bridge, portmap]}


def configure(host: Host) -> None:
    """Write the networks' files."""
    host.run(["mkdir", "-p", "/etc/cni/net.d"])
    for name, document in networks().items():
        host.run(["cp", "/dev/stdin", f"/etc/cni/net.d/{name}.conflist"], json.dumps(document))


def capabilities(port: int) -> dict[str, str]:
    """Return the variable with which `pycni` publishes a port, empty for 0."""
    mappings = [{"hostPort": port, "containerPort": PORT, "protocol": each} for each in ("tcp", "udp")]
    return {"CAP_ARGS": json.dumps({"portMappings": mappings})} if port else {}


def attach(host: Host, add: Callable[[str, str, int], object]) -> None:
    """Attach the containers; `add` runs `pycni add` with a network, the path of a namespace and a port."""
    configure(host)
    for container, (network, port) in CONTAINERS.items():
        add(network, host.sandbox(container).path, port)


def record(host: Host, folder: Path) -> None:
    """Write what there is on the host into a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    names = {"@BOOT@": _BOOT.read_text().strip(), "@RECORDS@": _identity(host, _RECORDS, ":")}
    names |= {f"@NETNS {name}@": _identity(host, f"/run/netns/{name}", ", ") for name in CONTAINERS}

    def neutral(text: str) -> str:
        for word, of_machine in names.items():
            text = text.replace(of_machine, word)
        return text

    for name, command in _RULES.items():
        text = host.run(command)
        if name == "ruleset.nft":
            text = _OF_IPTABLES.sub("", re.sub(r"^# Warning.*\n", "", text, flags=re.MULTILINE))
        (folder / name).write_text(neutral(re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)))
    state = {
        "files": [neutral(json.dumps(each)) for each in host.call(_files)],
        "host": _inside(host, {_peer_index(host, name): name for name in CONTAINERS}),
        "containers": {name: _inside(sandbox(host, name)) for name in CONTAINERS},
    }
    state["files"] = [json.loads(each) for each in state["files"]]
    (folder / "state.json").write_text(json.dumps(state, indent=1) + "\n")


def sandbox(host: Host, name: str) -> Sandbox:
    """Return a container of the host."""
    return Sandbox(host, name)


def _peer_index(host: Host, name: str) -> int:
    [link] = [each for each in sandbox(host, name).json(["ip", "-j", "link"]) if each["ifname"] != "lo"]
    return int(link["link_index"])


def _identity(host: Host, path: str, separator: str) -> str:
    return host.run(["stat", "-Lc", f"%d{separator}%i", path]).strip()


def _files() -> list[Json]:
    paths = [path for folder in _FOLDERS for path in [Path(folder), *sorted(Path(folder).rglob("*"))]]
    return [
        {
            "path": str(path),
            "mode": oct(path.lstat().st_mode & 0o7777),
            "text": path.read_bytes().decode() if path.is_file() else None,
        }
        for path in paths
        if path.name != "warm"
    ]


def _inside(place: Host | Sandbox, peers: dict[int, str] | None = None) -> Json:
    """Return links, routes and settings; `peers` are the containers of links by index."""
    links = [each for each in place.json(["ip", "-d", "-j", "link"]) if each["ifname"] != "lo"]
    addresses = {each["ifname"]: each["addr_info"] for each in place.json(["ip", "-j", "addr"])}
    routes = [each for family in ("-4", "-6") for each in place.json(["ip", family, "-j", "route"])]
    return {
        "links": [_link(each, addresses[each["ifname"]], peers or {}) for each in links],
        "routes": [f"{each['dst']} via {each['gateway']}" for each in routes if "gateway" in each],
        "settings": {path: _setting(place, path) for path in _settings(each["ifname"] for each in links)},
    }


def _settings(links: Iterable[str]) -> list[str]:
    own = [
        f"net/{family}/conf/{link}/{key}"
        for link in links
        for family, keys in _SETTINGS.items()
        for key in keys
    ]
    return [*_FORWARDING, *own]


def _setting(place: Host | Sandbox, path: str) -> str:
    return place.run(["cat", f"/proc/sys/{path}"]).strip()


def _address(shown: Json) -> str:
    more = f"brd {shown['broadcast']}" if "broadcast" in shown else "nodad"
    return f"{shown['local']}/{shown['prefixlen']} {more}"


def _link(shown: Json, addresses: list[Json], peers: dict[int, str]) -> Json:
    port = shown.get("linkinfo", {}).get("info_slave_data", {})
    return {
        "name": shown["ifname"],
        "kind": shown["linkinfo"]["info_kind"],
        "mac": shown["address"],
        "mtu": shown["mtu"],
        "alias": shown.get("ifalias", ""),
        "group": shown["group"],
        "container": peers.get(shown["ifindex"], ""),
        "master": shown.get("master", ""),
        "port": {key: "on" if port[key] else "off" for key in ("hairpin", "isolated") if key in port},
        "promisc": "PROMISC" in shown["flags"],
        "addresses": [_address(each) for each in addresses if each["scope"] != "link"],
    }


def replay(host: Host, folder: Path) -> None:
    """Make on an empty host what was recorded; the containers are its sandboxes."""
    state = json.loads((folder / "state.json").read_text())
    words = {"@BOOT@": _BOOT.read_text().strip()}
    for name in CONTAINERS:
        host.sandbox(name)
        words[f"@NETNS {name}@"] = _identity(host, f"/run/netns/{name}", ", ")
    host.call(_write_files, _replace(json.dumps(state["files"]), words))
    words["@RECORDS@"] = _identity(host, _RECORDS, ":")
    for link in sorted(state["host"]["links"], key=lambda each: each["kind"] != "bridge"):
        _make_link(host, link, state["containers"])
    for place, told in [(host, state["host"])] + [
        (sandbox(host, name), told) for name, told in state["containers"].items()
    ]:
        _set_up(place, told)
    for name, command in _RULES.items():
        load = ["nft", "-f", "-"] if name == "ruleset.nft" else [command[0].replace("save", "restore")]
        text = _replace((folder / name).read_text(), words)
        if text.strip():
            host.run(load, text)


def _replace(text: str, words: dict[str, str]) -> str:
    for word, of_machine in words.items():
        text = text.replace(word, of_machine)
    return text


def _write_files(listed: str) -> None:
    for each in json.loads(listed):
        path = Path(each["path"])
        if each["text"] is None:
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.write_bytes(each["text"].encode())
        path.chmod(int(each["mode"], 8))


def _make_link(host: Host, link: Json, containers: dict[str, Json]) -> None:
    made = ["ip", "link", "add", link["name"], "address", link["mac"], "mtu", str(link["mtu"])]
    if not link["container"]:
        host.run([*made, "type", link["kind"]])
        return
    [inner] = containers[link["container"]]["links"]
    peer = ["name", inner["name"], "address", inner["mac"], "mtu", str(inner["mtu"])]
    host.run([*made, "type", link["kind"], "peer", *peer, "netns", link["container"]])
    more = ["alias", link["alias"]] if link["alias"] else []
    host.run(["ip", "link", "set", link["name"], "master", link["master"], "group", link["group"], *more])
    options = [word for option in link["port"].items() for word in option]
    host.run(["bridge", "link", "set", "dev", link["name"], *options])


def _set_up(place: Host | Sandbox, told: Json) -> None:
    place.call(write_sysctls, told["settings"])
    lines = []
    for link in told["links"]:
        lines.append(f"link set {link['name']} up" + " promisc on" * link["promisc"])
        lines += [f"addr add {address} dev {link['name']}" for address in link["addresses"]]
    lines += [f"route add {route}" for route in told["routes"]]
    place.batch(lines)


def _main(bindir: str, command: str, folder: str) -> None:
    with Host(Path(bindir)) as host:
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "CNI_PATH": bindir, "PYCNI_WARM": "off"}

        def add(network: str, netns: str, port: int) -> None:
            host.run([command, "add", network, netns], env=env | capabilities(port), timeout_s=120)

        attach(host, add)
        record(host, Path(folder))


if __name__ == "__main__":
    _main(*sys.argv[1:])
