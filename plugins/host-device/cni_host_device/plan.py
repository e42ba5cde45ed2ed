"""The record of ADD: a device as it was on the host, which DEL must know to give it back; pure."""

from __future__ import annotations

from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from cni.interface.conf import is_link_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cni.kernel.link import Link
    from cni.result import IpInterface

_MAC_BYTES = 6


class Place(NamedTuple):
    """The place of a device in a namespace, as the kernel reports it. A container cannot choose `other`.

    `number` is its index there. `other` is the index of a veth's other end, or of the link below; 0 for
    hardware. It is an index of the namespace that has the number `netnsid` there, -1 for the device's own.
    """

    number: int = 0
    other: int = 0
    netnsid: int = -1

    @classmethod
    def of(cls, device: Link) -> Self:
        """Return the place of a device."""
        netnsid = -1 if device.netnsid is None else device.netnsid
        return cls(device.index, device.peer or device.parent, netnsid)


class Given(NamedTuple):
    """A device as it was on the host, and its place in the container; None before it is there.

    `bus` is the address on the bus of the hardware, "" for a virtual device.
    """

    name: str
    kind: str
    alias: str = ""
    bus: str = ""
    mac: str = ""
    mtu: int = 0
    is_up: bool = False
    addresses: tuple[IpInterface, ...] = ()
    place: Place | None = None

    def to_values(self) -> dict[str, Any]:
        """Return the values of a record."""
        return {**self._asdict(), "addresses": [str(each) for each in self.addresses]}

    def is_same(self, device: Link) -> bool:
        """Return whether a link of the container is the device itself, whatever its name and index are.

        All hardware looks alike.
        """
        return device.kind == self.kind and (self.place is None or Place.of(device)[1:] == self.place[1:])

    def is_forged(self, device: Link) -> bool:
        """Return whether the container has made a link: its other end is in the container, too."""
        return self.place is not None and self.place.netnsid != -1 and device.netnsid is None

    def rank(self, device: Link, ifname: str) -> int:
        """Return how much speaks for a link of the container to be the device; 0 if it is another one."""
        if device.kind != self.kind or self.is_forged(device):
            return 0
        has_index = self.place is not None and device.index == self.place.number
        has_peer = bool(self.place and self.place.other) and self.is_same(device)
        named = [has_index, device.name == ifname, device.alias == self.name, has_peer]
        return sum(named) + (4 if self.is_same(device) else 0) if any(named) else 0


def parse_given(values: Mapping[str, Any]) -> Given | None:
    """Return a device from the values of a record; None if they are not those of one."""
    try:
        place = values["place"]
        given = Given(
            str(values["name"]),
            str(values["kind"]),
            str(values["alias"]),
            str(values["bus"]),
            str(values["mac"]),
            int(values["mtu"]),
            bool(values["is_up"]),
            tuple(ip_interface(each) for each in values["addresses"]),
            None if place is None else Place(*map(int, place)),
        )
        is_mac = len(bytes.fromhex(given.mac.replace(":", ""))) == _MAC_BYTES
    except (KeyError, TypeError, ValueError):
        return None
    return given if is_link_name(given.name) and (is_mac or not given.mac) else None
