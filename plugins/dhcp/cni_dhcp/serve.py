"""The helper: renews all leases. It knows nothing that the records do not hold, but when it tried last."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from cni.errors import CniError
from cni.kernel import link
from cni.kernel.rtnetlink import Netlink
from cni.service.loop import Due, log
from cni_dhcp import lease as leases
from cni_dhcp import records
from cni_dhcp.exchange import Exchange, now_s
from cni_dhcp.records import HELPER

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.kernel.link import Link
    from cni.kernel.netns import Netns
    from cni.state.attachments import Key, Record
    from cni_dhcp.lease import Lease

__all__ = ["HELPER", "tick"]

# For one attempt: requests wait as long.
_ANSWER_WITHIN_S = 1.5
# RFC 2131, section 4.4.5: half of the time that remains, but at least a minute.
_SHORTEST_PAUSE_S = 60.0

# When to try again what has failed, by attachment and end of the lease; never if there is nothing to renew.
_again_s: dict[tuple[Key, float], float] = {}
_NEVER = inf


def tick(answer: Callable[[], bool]) -> Due:
    """Renew what is due; return the seconds until more is due, None if there is no lease to renew."""
    listed = _list_leases()
    due_now = [each for each in listed if _due_s(each[0], each[2]) <= now_s()]
    # Where no server answers, each takes a while: containers can see to that, at the cost of other leases.
    due_now.sort(key=lambda each: each[2].expires_s or 0)
    for key, record, lease in due_now:
        _attend(key, record, lease)
        if not answer():
            return Due(0)
    listed = _list_leases() if due_now else listed
    for each in _again_s.keys() - {_name(key, lease) for key, _, lease in listed}:
        del _again_s[each]
    due = [(due_s, key, lease) for key, _, lease in listed if (due_s := _due_s(key, lease)) != _NEVER]
    held = [f"{lease.address} of {key.container_id} {key.ifname} on {key.network}" for _, key, lease in due]
    return Due(max(0.0, min(each[0] for each in due) - now_s()) if due else None, held)


def _list_leases() -> list[tuple[Key, Record, Lease]]:
    return [each for each in records.list_leases() if each[2].expires_s is not None]


def _name(key: Key, lease: Lease) -> tuple[Key, float]:
    return key, lease.expires_s or 0


def _due_s(key: Key, lease: Lease) -> float:
    return _again_s.get(_name(key, lease), lease.renew_s)


def _attend(key: Key, record: Record, lease: Lease) -> None:
    """Renew a lease, or take its link down if it has expired; an error is logged, and tried again."""
    name, end_s = _name(key, lease), lease.expires_s or 0
    limit_s = lease.rebind_s if now_s() < lease.rebind_s else end_s
    _again_s[name] = min(now_s() + max((limit_s - now_s()) / 2, _SHORTEST_PAUSE_S), limit_s)
    try:
        with records.namespace_of(record) as ns:
            if ns is None:
                # DEL or GC drops the record.
                _again_s[name] = _NEVER
                return
            found = records.find_link(ns, key.ifname, lease)
            if now_s() >= end_s:
                _end(key, lease, ns, found, leases.EXPIRED)
            # The container may switch its link off, and on again.
            elif found and found.is_up:
                _renew(key, lease, ns, found)
    except CniError as error:
        _again_s[name] = now_s() + _SHORTEST_PAUSE_S
        log(f"could not renew {lease.address} of {key.container_id}: {error}")


def _renew(key: Key, lease: Lease, ns: Netns, own: Link) -> None:
    with Exchange(ns, key.ifname, lease.identity) as exchange:
        renewed = exchange.renew(lease, _ANSWER_WITHIN_S, is_broadcast=now_s() >= lease.rebind_s)
        if renewed is None:
            log(f"no server renews {lease.address} of {key.container_id}")
        elif renewed.state == leases.REFUSED:
            _end(key, lease, ns, own, leases.REFUSED)
        elif not records.replace(key, lease, renewed, ns):
            # DEL came meanwhile, and has released the lease before the server renewed it.
            exchange.release(renewed)


def _end(key: Key, lease: Lease, ns: Netns, own: Link | None, state: str) -> None:
    """Take the link down if it is there: the server may give the address to another client."""
    is_recorded = records.replace(key, lease, lease._replace(state=state), ns)
    if not is_recorded or own is None:
        return
    with Netlink(ns) as inside:
        inside.batch([link.set_flags(own.name, own.index, off=link.IFF_UP)])
    log(f"the lease of {lease.address} of {key.container_id} is {state}: {key.ifname} is down")
