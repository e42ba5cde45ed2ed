"""The networks of this host as `pycni network` shows them, and their removal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cni.conf import decode_object
from cni.errors import CniError, Code
from cni.kernel import link
from cni.kernel.rtnetlink import Netlink
from cni.log import note
from cni.operations import runs
from cni.runtime import conflists
from cni.runtime.alive import list_alive
from cni.runtime.create import OWN_KEY, changing_networks, identifier, link_name
from cni.runtime.network import bridges
from cni.state import files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.request import Attachment
    from cni.runtime.chain import Runtime
    from cni.runtime.network import Network


class Described(NamedTuple):
    """A network with what its list says of its creation. `is_own`: `pycni network create` wrote the list."""

    network: Network
    driver: str
    is_own: bool
    created: str
    is_internal: bool
    labels: dict[str, str]
    options: dict[str, str]

    @property
    def id(self) -> str:
        """The network's ID."""
        return identifier(self.network.name)


def list_networks(folder: Path) -> tuple[list[Described], list[conflists.Broken]]:
    """Return the configured networks, of each name the one that counts, and the invalid files."""
    loaded = conflists.load_all(folder)
    networks: dict[str, Network] = {}
    for each in loaded:
        if not isinstance(each, conflists.Broken):
            networks.setdefault(each.name, each)
    broken = [each for each in loaded if isinstance(each, conflists.Broken)]
    return [describe(networks[name]) for name in sorted(networks)], broken


def describe(network: Network) -> Described:
    """Return a network with what its list says of its creation."""
    own = decode_object(network.text, network.file).get(OWN_KEY)
    given = own if isinstance(own, dict) else {}
    return Described(
        network,
        str(given.get("driver") or network.plugins[0].type),
        isinstance(own, dict),
        str(given.get("created", "")),
        given.get("internal") is True,
        _texts(given.get("labels")),
        _texts(given.get("options")),
    )


def _texts(value: Any) -> dict[str, str]:
    return {key: str(each) for key, each in value.items()} if isinstance(value, dict) else {}


def find(listed: Sequence[Described], name: str) -> Described:
    """Return the network with a name, an ID or the beginning of an ID. Raise CniError 7."""
    named = [each for each in listed if each.network.name == name]
    found = named or [each for each in listed if name and each.id.startswith(name)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(each.network.name for each in found)
        raise CniError(Code.INVALID_CONFIG, f'ID "{name}" is of several networks: {names}', "Use the name.")
    raise CniError(Code.INVALID_CONFIG, f"network {name} not found", 'Run "pycni network ls" for a list.')


def tidy(folder: Path) -> None:
    """Remove what a `create` that was killed has left. Raise CniError 11 or 106."""
    with changing_networks(folder):
        pass


def list_attached(runtime: Runtime, network: Network) -> set[Attachment]:
    """Return the attachments of a network that are not proven to be gone."""
    return list_alive(runtime, network)


def remove(runtime: Runtime, described: Described, *, forced: bool) -> None:
    """Remove a network's list, and the remains of containers that are gone. Raise CniError 7 or 105.

    A network with attached containers is refused. So are a list that another program wrote, and one whose
    plugins cannot remove remains, unless `forced`.
    """
    network = described.network
    if not described.is_own and not forced:
        raise CniError(
            Code.INVALID_CONFIG,
            f"pycni did not create network {network.name}: {network.file}",
            "Remove it with the program that did, or use --force.",
        )
    with changing_networks(Path(network.file).parent):
        runs.remove_stale()
        attached = list_attached(runtime, network)
        if attached:
            listed = ", ".join(sorted(f"{each.container_id} {each.ifname}".strip() for each in attached))
            raise CniError(
                Code.ALREADY_EXISTS,
                f"network {network.name} has attached containers: {listed}",
                "Remove or disconnect them first.",
            )
        try:
            runtime.gc(network, set())
        except CniError as error:
            if not forced:
                raise
            note(f"pycni: {error}")
        # The list goes last: as long as it is there, this command finds what remains to be removed.
        if described.is_own:
            _remove_bridge(network)
        files.remove(network.file)


def _remove_bridge(network: Network) -> None:
    """Remove the bridge that has the network's own name, if it has no ports."""
    name = link_name(network.name)
    if name not in bridges(network):
        return
    with Netlink() as host:
        found = link.find(host, name)
        if found and found.kind == "bridge" and not link.list_links(host, found.index):
            link.remove(host, name, found.index)


def prune(runtime: Runtime, listed: Sequence[Described]) -> tuple[list[str], list[CniError]]:
    """Remove those of the networks that pycni has made and that no container uses.

    Return their names, and errors of others.
    """
    removed, errors = [], []
    for each in listed:
        if not each.is_own:
            continue
        try:
            if not list_attached(runtime, each.network):
                remove(runtime, each, forced=False)
                removed.append(each.network.name)
        except CniError as error:
            errors.append(error)
    return removed, errors
