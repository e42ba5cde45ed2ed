"""Choose an address of each range set by the leases on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.ipam.leases import parse_last
from cni_host_local_ipam.plan import Choice, assign, choose_free
from cni_host_local_ipam.ranges import find_range, show_range_set

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cni.ipam.leases import Lease, Leases
    from cni.request import Attachment
    from cni.result import IpAddress
    from cni_host_local_ipam.ranges import RangeSet


def choose(
    leases: Leases,
    owner: Attachment,
    last: Sequence[bytes | None],
    range_sets: Sequence[RangeSet],
    requested: Iterable[IpAddress],
) -> list[Choice]:
    """Return the choice for each range set, in order. The caller holds the lock; nothing is changed.

    `last` has the content of last_reserved_ip for each set. Raises CniError 102 if a set has no such
    address, 105 if the attachment already has one of the set.
    """
    return _Chooser(leases, owner, last).choose(range_sets, requested)


class _Chooser:
    """Lists the folder once at most, and only if it must."""

    def __init__(self, leases: Leases, owner: Attachment, last: Sequence[bytes | None]) -> None:
        self._leases = leases
        self._owner = owner
        self._last = last
        self._held: list[Lease] | None = None

    def choose(self, range_sets: Sequence[RangeSet], requested: Iterable[IpAddress]) -> list[Choice]:
        assigned, left = assign(range_sets, requested)
        choices = [
            self._choose_of(*each) for each in zip(range(len(assigned)), range_sets, assigned, strict=True)
        ]
        if left:
            raise CniError(
                Code.POOL,
                f"failed to allocate all requested IPs: {' '.join(map(str, left))}",
                f"each range set gives one address; they are {' and '.join(map(show_range_set, range_sets))}",
            )
        return choices

    def _choose_of(self, number: int, range_set: RangeSet, wanted: IpAddress | None) -> Choice:
        try:
            if wanted is not None:
                return self._choose_requested(number, range_set, wanted)
            return self._choose_former(number, range_set) or self._choose_next(number, range_set)
        except CniError as error:
            raise CniError(
                error.code, f"failed to allocate for range {number}: {error.msg}", error.details
            ) from error

    def _choose_requested(self, number: int, range_set: RangeSet, address: IpAddress) -> Choice:
        range_ = find_range(range_set, address)
        if range_ is None or address == range_.gateway:
            raise CniError(
                Code.POOL, f"requested ip {address} is subnet's gateway", "ask for another address"
            )
        lease = self._leases.find(address)
        if lease is None or not self._leases.is_alive(lease):
            return Choice(number, address, range_)
        if lease.is_held_by(self._owner):
            return Choice(number, address, range_, is_held=True)
        raise CniError(
            Code.POOL,
            f"requested IP address {address} is not available in range set {show_range_set(range_set)}: "
            f"it is held by {lease.holder()}",
            _remedy(lease),
        )

    def _choose_former(self, number: int, range_set: RangeSet) -> Choice | None:
        """Return the address that the attachment had before this boot, None if it had none.

        Raises CniError 105 if the attachment already has an address of the set.
        """
        former = None
        if self._held is None:
            self._held = self._leases.list_of(self._owner)
        for lease in self._held:
            address = lease.address
            range_ = find_range(range_set, address) if address is not None else None
            if address is None or range_ is None:
                continue
            if self._leases.is_alive(lease):
                raise CniError(
                    Code.ALREADY_EXISTS,
                    f"{address} has been allocated to {self._owner.container_id}, "
                    "duplicate allocation is not allowed",
                    _remedy(lease),
                )
            if address != range_.gateway:
                former = Choice(number, address, range_)
        return former

    def _choose_next(self, number: int, range_set: RangeSet) -> Choice:
        last = parse_last(self._last[number])
        found = choose_free(range_set, last, self._leases.is_free)
        found = found or choose_free(range_set, last, self._leases.is_reclaimable)
        if found is None:
            raise CniError(
                Code.POOL,
                f"no IP addresses available in range set: {show_range_set(range_set)}",
                f"the files in {self._leases.folder} tell which container holds which address; GC, or "
                "DEL for containers that are gone, gives theirs back",
            )
        return Choice(number, *found)


def _remedy(lease: Lease) -> str:
    return f"{lease.path} says so; if {lease.holder()} is gone, call DEL for it or remove that file"
