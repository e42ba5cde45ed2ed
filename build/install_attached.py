"""Attachments that no plugin can delete after the suite is removed, and its remaining files and rules."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, ErrorList
from cni.firewall import nft, owners
from cni.firewall.intents import KINDS, Owner
from cni.firewall.nftables import elements
from cni.firewall.nftables.backend import Nftables
from cni.firewall.nftables.layout import FAMILIES, TABLE
from cni.kernel.child import run
from cni.runtime.cache import Cache
from cni.runtime.chain import Runtime
from cni.runtime.derive import RuntimeArgs
from cni.runtime.network import fold, parse_network
from install_report import find_runtimes
from install_tree import InstallError, is_launcher

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from cni.runtime.cache import Entry
    from cni.runtime.network import Network

STATE = Path("/run/pycni")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TIMEOUT_S = 10


class Attached(NamedTuple):
    """An attachment that only this suite can delete, and why; `entry` is None if no result is cached."""

    owner: Owner
    reason: str
    entry: Entry | None

    def __str__(self) -> str:
        """Return its names and the reason, for a list."""
        return f"{self.owner.network} {self.owner.container_id} {self.owner.ifname}: {self.reason}"


def find_lost(successors: dict[str, Path | None]) -> list[Attached]:
    """Return the attachments that no plugin can delete after the suite is removed.

    `successors` has the removed plugins, each with the executable that runtimes find instead.
    """
    if any(path and is_launcher(path) for path in successors.values()):
        # The runtimes find another installation of this suite.
        return []
    versions: dict[Path, list[str]] = {}
    in_nftables = _owners_in_nftables()
    lost = []
    for entry in Cache().list_entries():
        owner = Owner(entry.network, entry.container_id, entry.ifname)
        is_in_nftables = in_nftables.pop(owners.tag(owner), None) is not None
        reason = _reason(_network(entry), successors, versions, is_in_nftables=is_in_nftables)
        if reason:
            lost.append(Attached(owner, reason, entry))
    # Rules without a cached result: of a runtime without a result cache, or of an unfinished call.
    return [
        *lost,
        *(Attached(each, "has nftables rules of pycni", None) for each in in_nftables.values() if each),
    ]


def _reason(
    network: Network | None,
    successors: dict[str, Path | None],
    versions: dict[Path, list[str]],
    *,
    is_in_nftables: bool,
) -> str:
    if is_in_nftables:
        return "has nftables rules of pycni, which no other suite deletes"
    for name in _types(network) if network else ():
        if name not in successors:
            continue
        path = successors[name]
        if path is None:
            return f"needs {name}, which nothing replaces"
        if path not in versions:
            versions[path] = _versions(path)
        if network and versions[path] and network.cni_version not in versions[path]:
            return f"is of version {network.cni_version}, which the plugin that comes back does not know"
    return ""


def _network(entry: Entry) -> Network | None:
    try:
        return parse_network(entry.config, "in the result cache")
    except CniError:
        return None


def _types(network: Network) -> Iterator[str]:
    for plugin in network.plugins:
        yield plugin.type
        ipam = fold(plugin.document).get("ipam")
        if isinstance(ipam, dict) and isinstance(ipam.get("type"), str):
            yield ipam["type"]


def _versions(plugin: Path) -> list[str]:
    """Return the versions that a plugin supports; none if it fails."""
    env = {"CNI_COMMAND": "VERSION", "PATH": _PATH}
    try:
        response = json.loads(
            run([str(plugin)], b'{"cniVersion": "1.0.0"}', env=env, timeout_s=_TIMEOUT_S).stdout
        )
        return [str(each) for each in response["supportedVersions"]]
    except (CniError, OSError, ValueError, KeyError, TypeError):
        return []


def _owners_in_nftables() -> dict[str, Owner | None]:
    """Return the owners of elements in pycni's tables, by tag."""
    try:
        comments = [
            comment
            for family in FAMILIES
            if nft.has_table(family, TABLE)
            for name in elements.list_sets(family)
            for _, comment in elements.search(family, name, "")
        ]
    except (CniError, OSError):
        # nf_tables is missing or not permitted, so there are no such rules.
        return {}
    return {owners.tag_of(comment): Owner(*owner) for comment in comments if (owner := owners.parse(comment))}


def refuse(lost: Sequence[Attached]) -> None:
    """Raise InstallError that lists attachments which no plugin could delete any more."""
    if lost:
        raise InstallError(
            "nothing was removed, as no plugin could delete these attachments any more:\n"
            + "".join(f"  {each}\n" for each in lost)
            + "Delete their containers first, or uninstall with ATTACHED=detach to detach them now, "
            "or with ATTACHED=leave to leave their links, leases and rules as they are."
        )


def detach(lost: Sequence[Attached], bindirs: Collection[Path]) -> Iterator[str]:
    """Detach by DEL as at ADD. Yield lines to print. Raises InstallError with all failures."""
    path = [str(each) for each in (*bindirs, *_searched())]
    runtime = Runtime(path, {"PATH": _PATH})
    errors = ErrorList()
    for each in lost:
        errors.attempt(_detach, runtime, each)
    try:
        errors.raise_any()
    except CniError as error:
        raise InstallError(
            f"nothing was removed, as not all attachments could be detached: {error}"
        ) from error
    yield from (
        f"{each.owner.network} {each.owner.container_id} {each.owner.ifname}: detached" for each in lost
    )


def _detach(runtime: Runtime, attached: Attached) -> None:
    owner, entry = attached.owner, attached.entry
    network = _network(entry) if entry else None
    if entry and network:
        runtime.delete(network, RuntimeArgs(owner.container_id, entry.sandbox, owner.ifname))
    for kind in KINDS:
        Nftables().remove(owner, kind)


def find_successors(names: Collection[str], bindirs: dict[Path, Path]) -> dict[str, Path | None]:
    """Return the executables that runtimes find by these names after the suite is removed.

    `bindirs` maps each folder that loses its plugins to the folder of the originals, which are restored.
    """
    folders = [*bindirs.values(), *(each for each in _searched() if each not in bindirs)]
    return {
        name: next((folder / name for folder in folders if os.access(folder / name, os.X_OK)), None)
        for name in names
    }


def _searched() -> list[Path]:
    return list(dict.fromkeys(folder for runtime in find_runtimes() for folder in runtime.folders))


def describe_rest() -> Iterator[str]:
    """Yield lines with commands that remove the remaining files in /run and rules in the kernel."""
    commands = [f"rm -r {STATE}"] if STATE.exists() else []
    try:
        tables = [nft.FAMILY_NAMES[family] for family in FAMILIES if nft.has_table(family, TABLE)]
    except (CniError, OSError):
        tables = []
    commands += [f"nft delete table {family} {TABLE}" for family in tables]
    if commands:
        yield f"remaining until the next boot; these commands remove it: {'; '.join(commands)}"
