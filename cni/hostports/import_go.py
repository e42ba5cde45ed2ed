"""Find published host ports that are not in the ledger, once after each boot.

The Go plugins have no ledger, and the cost of a search for their rules grows with their number. Therefore
only the first ADD after a boot searches, which is when a node has been migrated to this suite. An ADD also
searches if the ledger was removed: then it finds our own ports as well, by the rules of iptables and the
elements of nftables.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code
from cni.firewall import owners
from cni.firewall.intents import Owner
from cni.firewall.iptables import rules, variants
from cni.firewall.iptables.execute import Tool
from cni.firewall.iptables.stale import read_mappings
from cni.firewall.nftables import elements, stale
from cni.firewall.nftables.layout import FAMILIES, HOST_IP_PORTS, PORTS
from cni.operations import holders

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.firewall.intents import PortMapping

_VERSIONS = (4, 6)
# The folder of libcni's result cache: containerd, CRI-O, podman, cnitool and nerdctl use it.
_RESULTS = Path("/var/lib/cni/results")
# In place of a chain's name, for ports that elements of nftables publish.
ELEMENTS = "elements"


class Published(NamedTuple):
    """The ports that an attachment publishes, by a chain of iptables or by `ELEMENTS`."""

    owner: Owner
    chain: str
    mappings: tuple[PortMapping, ...]


def find_published() -> list[Published]:
    """Find the ports that table nat of iptables, of both variants, and our tables of nftables publish.

    Tables that cannot be read are omitted. Raise CniError 11 if the caller should try again.
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
    by_rules = [each._replace(mappings=tuple(dict.fromkeys(each.mappings))) for each in found.values()]
    return [*by_rules, *_published_by_elements()]


def _published_by_elements() -> list[Published]:
    try:
        found = [
            each for family in FAMILIES for name in (PORTS, HOST_IP_PORTS) for each in _search(family, name)
        ]
    except CniError as error:
        if error.code == Code.TRY_AGAIN:
            raise
        return []
    ports: dict[Owner, dict[PortMapping, None]] = {}
    for owner, mapping in found:
        ports.setdefault(owner, {})[mapping] = None
    return [Published(owner, ELEMENTS, tuple(mappings)) for owner, mappings in ports.items()]


def _search(family: int, name: str, tag: str = "") -> Iterator[tuple[Owner, PortMapping]]:
    for element, comment in elements.search(family, name, tag):
        if (owner := owners.parse(comment)) is None:
            continue
        for mapping in stale.read_mappings(element):
            yield Owner(*owner), mapping._replace(container_port=0)


def _published(version: int) -> Iterator[Published]:
    for tool in variants.list_with_table(Tool(version, rules.NAT)):
        listed = tool.list_all()
        for rule in listed:
            owner = rules.find_owner(rule)
            if owner and rule.chain == rules.DNAT:
                # These rules do not name the interface, which is eth0 unless the runtime chooses another
                # name.
                yield Published(Owner(*owner, "eth0"), rule.leads_to, read_mappings(listed, rule.leads_to))


def is_live(owner: Owner, chain: str) -> bool:
    """Return whether the rules of a container's ports exist, and the container is not known to be gone.

    Only the caches of runtimes with libcni show where the container is.
    """
    if chain != ELEMENTS and not rules.is_containers(chain):
        return False
    gone = [_is_known_gone(path) for path in _results(f"{owner.network}-{owner.container_id}-")]
    if gone and all(gone):
        return False
    return _has_elements(owner) if chain == ELEMENTS else _is_there(chain)


def _has_elements(owner: Owner) -> bool:
    tag = owners.network_tag(owner.network)
    try:
        return any(
            found == owner
            for family in FAMILIES
            for name in (PORTS, HOST_IP_PORTS)
            for found, _ in _search(family, name, tag)
        )
    except CniError:
        return True


def _results(prefix: str) -> list[Path]:
    try:
        return [path for path in _RESULTS.iterdir() if path.name.startswith(prefix)]
    except OSError:
        return []


def _is_known_gone(cached: Path) -> bool:
    """Return whether the attachment of a cached result is proven to be gone."""
    try:
        entry = json.loads(cached.read_bytes())
        path, result = str(entry["netns"]), entry.get("result")
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return False
    return path.startswith("/") and holders.is_proven_gone(path, result if isinstance(result, dict) else {})


def _is_there(chain: str) -> bool:
    try:
        return any(variants.may_have_chain(version, rules.NAT, chain) for version in _VERSIONS)
    except (CniError, OSError):
        return True
