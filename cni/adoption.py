"""Host ports that the Go plugins have published: found once after each boot, for the ledger of ours.

The Go plugins keep no ledger, and to look for their rules in each ADD would cost it more the more there are.
So the first ADD after a boot looks, which is when a node has moved from them to us.
"""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cni.errors import CniError, Code
from cni.firewall import iptables_rules as rules
from cni.firewall import iptables_variants as variants
from cni.firewall.iptables_exec import Tool
from cni.firewall.iptables_stale import read_mappings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.firewall.intents import PortMapping

_VERSIONS = (4, 6)
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
    """Return whether a container's chain is there still and its attachments are not known to be gone.

    The Go plugins keep no note of them; runtimes with libcni do.
    """
    if not rules.is_containers(chain):
        return False
    noted = [_is_known_gone(path) for path in _results(f"{network}-{container_id}-")]
    return not (noted and all(noted)) and _is_there(chain)


def _results(prefix: str) -> list[Path]:
    try:
        return [path for path in _RESULTS.iterdir() if path.name.startswith(prefix)]
    except OSError:
        return []


def _is_known_gone(cached: Path) -> bool:
    """Return whether nothing is at the path of the noted namespace, nor any host end that the result names.

    The path alone proves nothing: it may have been noted in another mount namespace.
    """
    try:
        noted = json.loads(cached.read_bytes())
        Path(noted["netns"]).stat()
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ESRCH} or error.filename == str(cached):
            return False
    except (ValueError, TypeError, KeyError, RecursionError):
        return False
    else:
        return False
    return noted["netns"].startswith("/") and not any(map(_is_host_end, _host_links(noted)))


def _host_links(noted: dict[str, Any]) -> list[str]:
    try:
        interfaces = noted["result"]["interfaces"]
        return [str(each["name"]) for each in interfaces if not each.get("sandbox")]
    except (TypeError, KeyError, AttributeError):
        return []


def _is_host_end(name: str) -> bool:
    from cni import link
    from cni.netlink import Netlink

    with Netlink() as nl:
        found = link.find(nl, name)
    return found is not None and bool(found.peer)


def _is_there(chain: str) -> bool:
    try:
        return any(variants.may_have_chain(version, chain) for version in _VERSIONS)
    except (CniError, OSError):
        return True
