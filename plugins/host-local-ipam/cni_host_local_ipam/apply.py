"""Take addresses, give them back, and look at what is taken."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cni.errors import CniError, Code, ErrorList
from cni.result import Dns
from cni_host_local_ipam.choose import choose
from cni_host_local_ipam.plan import parse_resolv_conf

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cni.ipam.leases import Leases
    from cni.request import Attachment
    from cni.result import IpAddress
    from cni.undo import Undo
    from cni_host_local_ipam.plan import Choice
    from cni_host_local_ipam.ranges import RangeSet

_LARGEST_RESOLV_CONF_BYTES = 1 << 20


def read_dns(path: str) -> Dns:
    """Read the file that `resolvConf` names; "" gives no settings. Raises CniError 5."""
    if not path:
        return Dns()
    try:
        content = _read_start(path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CniError(Code.IO_FAILURE, f"open {path}: {reason}", "ipam.resolvConf names it") from error
    return parse_resolv_conf(content.decode(errors="replace"))


def _read_start(path: str) -> bytes:
    # O_NONBLOCK: a FIFO without a writer is an empty file, not a wait without end.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return os.read(fd, _LARGEST_RESOLV_CONF_BYTES)
    finally:
        os.close(fd)


def take(
    leases: Leases,
    owner: Attachment,
    range_sets: Sequence[RangeSet],
    requested: Iterable[IpAddress],
    undo: Undo,
) -> list[Choice]:
    """Take an address of each range set. Raises CniError 102 when one has none, 105 for a second ADD."""
    undo.add(f"remove {leases.folder}", leases.remove_unused)
    with leases.locked():
        before = [leases.read_last(number) for number in range(len(range_sets))]
        choices = choose(leases, owner, before, range_sets, requested)
        new = [each for each in choices if not each.is_held]
        for each in new:
            undo.add(
                "restore last_reserved_ip",
                leases.restore_last,
                each.number,
                before[each.number],
                each.address,
            )
        for each in new:
            undo.add(f"release {each.address}", leases.release, each.address, owner)
            leases.reserve(each.address, owner)
        for each in new:
            leases.write_last(each.number, each.address)
    return choices


def release(leases: Leases, owner: Attachment, likely: Iterable[IpAddress]) -> None:
    """Give back all that the attachment holds, whatever ranges are configured now; nothing is fine.

    `likely` has the addresses that it was given, as far as that is known.
    """
    if not leases.exists():
        return
    with leases.locked():
        errors = ErrorList()
        for lease in leases.list_held_by(owner, likely):
            errors.attempt(leases.remove, lease)
        errors.attempt(leases.remove_unfinished)
    errors.raise_any()
