"""What DEL must know about a device to give it back, as the record of ADD has it; pure."""

from __future__ import annotations

from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any, NamedTuple

from cni.interface.conf import is_link_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cni.result import IpInterface


class Given(NamedTuple):
    """A device as it was on the host, and its index in the container; 0 before it is there."""

    name: str
    kind: str
    is_up: bool
    addresses: tuple[IpInterface, ...] = ()
    inner_index: int = 0

    def to_values(self) -> dict[str, Any]:
        """Return the values of a record."""
        return {**self._asdict(), "addresses": [str(each) for each in self.addresses]}


def parse_given(values: Mapping[str, Any]) -> Given | None:
    """Return a device from the values of a record; None if they are not those of one."""
    try:
        given = Given(
            str(values["name"]),
            str(values["kind"]),
            bool(values["is_up"]),
            tuple(ip_interface(each) for each in values["addresses"]),
            int(values["inner_index"]),
        )
    except (KeyError, TypeError, ValueError):
        return None
    return given if is_link_name(given.name) else None
