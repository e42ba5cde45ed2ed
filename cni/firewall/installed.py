"""Find containers that have lost their rules, by names alone, for STATUS.

Their exact rules depend on addresses and ports, which only CHECK is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import CniError
from cni.firewall.intents import FORWARD
from cni.firewall.iptables import rules, variants
from cni.firewall.iptables.backend import Iptables
from cni.firewall.nftables import records
from cni.firewall.nftables.backend import Nftables

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cni.firewall.intents import Kind, Owner


def without(owners: Sequence[Owner], kind: Kind, versions: Collection[int] = ()) -> list[Owner]:
    """List owners without rules of a kind in any backend: for iptables in each of `versions`, or any."""
    for backend in (Nftables(), Iptables()):
        # The other backend lists tables. It checks only the remaining owners.
        if owners:
            present = backend.installed(owners, kind, versions)
            owners = [owner for owner in owners if owner not in present]
    return list(owners)


def may_be_published(owner: Owner) -> bool:
    """Return whether rules may publish ports of an owner. False only if all proves that they are removed.

    The Go plugins' DEL keeps the shared chain and removes the owner's. If neither exists, a firewall was
    flushed, and a repair publishes the ports again. Only this suite removes elements of nftables.
    """
    if records.exists(FORWARD.name, owner):
        return True
    try:
        seen = {name for name in (rules.DNAT, rules.forward_chain(owner)) if _may_have_chain(name)}
    except (CniError, OSError):
        return True
    return seen != {rules.DNAT}


def _may_have_chain(name: str) -> bool:
    return any(variants.may_have_chain(version, rules.NAT, name) for version in (4, 6))
