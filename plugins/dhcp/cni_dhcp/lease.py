"""A lease as the record of its attachment holds it. Pure.

Times are seconds of the clock that counts from the boot on, also while the machine is suspended. Nobody can
set it, and records end with the boot.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

from cni_dhcp import packets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cni_dhcp.packets import Message

# The states of a record. ADD saves the first one before it asks for the offered address. In the last two the
# address must not be used: the lease has expired, or its server has refused to renew it.
OFFERED, BOUND, EXPIRED, REFUSED = "offered", "bound", "expired", "refused"
# The Go plugin's values for a server that names none.
_LEASE_S = 3600
_RENEWAL_PART, _REBINDING_PART = 0.5, 0.85


class Identity(NamedTuple):
    """The identity of the client: hardware address, and the options that each of its messages has."""

    mac: bytes
    options: Mapping[int, bytes]


class Lease(NamedTuple):
    """An address and what is needed to renew and to release it.

    `server_mac` is the hardware address that the server's messages came from. `xid` is that of the last
    exchange. All times are 0 for an offer, and `expires_s` is None for a lease without end.
    """

    state: str
    address: IPv4Address
    server: IPv4Address
    server_mac: bytes
    xid: int
    identity: Identity
    renew_s: float = 0
    rebind_s: float = 0
    expires_s: float | None = 0

    def is_valid(self, now_s: float) -> bool:
        """Return whether the address may be used."""
        return self.state == BOUND and (self.expires_s is None or now_s < self.expires_s)

    @property
    def is_over(self) -> bool:
        """Return whether the lease has ended before its attachment."""
        return self.state in {EXPIRED, REFUSED}

    def to_values(self) -> dict[str, Any]:
        """Return the lease as values of a record."""
        return {
            "state": self.state,
            "address": str(self.address),
            "server": str(self.server),
            "server_mac": self.server_mac.hex(),
            "xid": self.xid,
            "mac": self.identity.mac.hex(),
            "options": {str(code): value.hex() for code, value in self.identity.options.items()},
            "renew_s": self.renew_s,
            "rebind_s": self.rebind_s,
            "expires_s": self.expires_s,
        }


def read(values: Mapping[str, Any]) -> Lease | None:
    """Return the lease of a record's values; None if they are not sound."""
    try:
        macs = [bytes.fromhex(values[key]) for key in ("mac", "server_mac")]
        options = {int(code): bytes.fromhex(value) for code, value in values["options"].items()}
        expires_s = values["expires_s"]
        lease = Lease(
            str(values["state"]),
            IPv4Address(values["address"]),
            IPv4Address(values["server"]),
            macs[1],
            int(values["xid"]),
            Identity(macs[0], options),
            float(values["renew_s"]),
            float(values["rebind_s"]),
            None if expires_s is None else float(expires_s),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None
    is_sound = all(len(mac) == 6 for mac in macs) and all(0 < code < 255 for code in options)
    is_sound = is_sound and all(map(isfinite, (lease.renew_s, lease.rebind_s, lease.expires_s or 0)))
    return lease if is_sound and lease.state in {OFFERED, BOUND, EXPIRED, REFUSED} else None


def of_offer(offer: Message, server_mac: bytes, identity: Identity) -> Lease:
    """Return an offer as a lease. Raise MalformedError if it names no server or no address."""
    server = offer.address(packets.SERVER_IDENTIFIER)
    if server is None or offer.your_address in {packets.NOWHERE, packets.BROADCAST}:
        raise packets.MalformedError("a message of a server without an address or without the server's name")
    return Lease(OFFERED, offer.your_address, server, server_mac, offer.xid, identity)


def of_acknowledgement(ack: Message, server_mac: bytes, identity: Identity, asked_s: float) -> Lease:
    """Return the lease that a server acknowledges; `asked_s` is when it was asked for. Raise MalformedError.

    T1 and T2 that are not in their order are replaced by the usual parts of the lease time (RFC 2131, 4.4.5).
    """
    offered = of_offer(ack, server_mac, identity)
    duration = ack.number(packets.LEASE_TIME)
    duration = _LEASE_S if duration is None else duration
    if not duration:
        raise packets.MalformedError("a lease time of 0")
    if duration == packets.FOREVER:
        return offered._replace(state=BOUND, expires_s=None)
    renewal = ack.number(packets.RENEWAL_TIME) or duration * _RENEWAL_PART
    rebinding = ack.number(packets.REBINDING_TIME) or duration * _REBINDING_PART
    if not 0 < renewal < rebinding < duration:
        renewal, rebinding = duration * _RENEWAL_PART, duration * _REBINDING_PART
    times = (asked_s + renewal, asked_s + rebinding, asked_s + duration)
    return offered._replace(state=BOUND, renew_s=times[0], rebind_s=times[1], expires_s=times[2])
