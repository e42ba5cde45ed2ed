"""Host ports that the Go plugins have published: found once after each boot, for the ledger of ours.

The Go plugins keep no ledger, and to look for their rules in each ADD would cost it more the more there are.
So the first ADD after a boot looks, which is when a node has moved from them to us.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code
from cni.firewall import iptables_legacy, nft
from cni.firewall import iptables_rules as rules
from cni.firewall import iptables_variants as variants
from cni.firewall.iptables_exec import Tool
from cni.firewall.iptables_stale import read_mappings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.firewall.intents import PortMapping

_VERSIONS = {4: nft.IPV4, 6: nft.IPV6}
# Where libcni keeps results: containerd, CRI-O, podman, cnitool, nerdctl.
_RESULTS = Path("/var/lib/cni/results")


class Published(NamedTuple):
    """What one container has published: the chain of its rules lives as long as they do."""

    network: str
    container_id: str
    chain: str
    mappings: tuple[PortMapping, ...]


def find_published() -> list[Published]:
    """Find what is published in table nat of iptables, both variants; what cannot be read is left out.

    Raises CniError 11 when it should be tried again.
    """
    found: dict[str, Published] = {}
    for version in _VERSIONS:
        try:
            for each in _published(version):
                known = found.get(each.chain, each)
                found[each.chain] = each._replace(mappings=(*known.mappings, *each.mappings))
        except CniError as error:
            if error.code == Code.TRY_AGAIN:
                raise
    return [each._replace(mappings=tuple(dict.fromkeys(each.mappings))) for each in found.values()]


def _published(version: int) -> Iterator[Published]:
    for tool in variants.list_with_table(Tool(version)):
        lines = tool.list_all()
        for rule in filter(None, map(rules.parse_rule, lines)):
            owner, chain = rules.find_owner(rule), rules.find_target(rule)
            if owner and rule.chain == rules.DNAT:
                yield Published(*owner, chain, read_mappings(lines, chain))


def is_live(network: str, container_id: str, chain: str) -> bool:
    """Tell whether a container's chain is there still and its namespace not known to be gone.

    The Go plugins keep no note of the namespace; runtimes with libcni do.
    """
    if not rules.is_containers(chain):
        return False
    noted = [_noted_namespace(path) for path in _results(f"{network}-{container_id}-")]
    is_dead = bool(noted) and not any(path is None or path.exists() for path in noted)
    return not is_dead and _is_there(chain)


def _results(prefix: str) -> list[Path]:
    try:
        return [path for path in _RESULTS.iterdir() if path.name.startswith(prefix)]
    except OSError:
        return []


def _noted_namespace(cached: Path) -> Path | None:
    try:
        path = json.loads(cached.read_bytes())["netns"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return Path(path) if isinstance(path, str) and path.startswith("/") else None


def _is_there(chain: str) -> bool:
    try:
        return any(
            nft.find_chain(family, "nat", chain) is not None
            or (iptables_legacy.is_loaded(version) and iptables_legacy.may_have_chain(version, chain))
            for version, family in _VERSIONS.items()
        )
    except (CniError, OSError):
        return True
