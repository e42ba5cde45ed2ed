"""The backend firewalld: addresses are sources of a zone, as the Go plugin makes them, over D-Bus.

They are a part of the configuration at run time: a reload of firewalld removes them, and repair adds them
again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import CniError, Code, ErrorList
from cni.kernel.dbus import Bus, BusError, Service, may_exist

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.result import IpAddress
    from cni.undo import Undo

NAME = "org.fedoraproject.FirewallD1"
_ZONES = Service(NAME, "/org/fedoraproject/FirewallD1", f"{NAME}.zone")
# The address is a source of this zone already.
_IS_SET = ("ZONE_ALREADY_SET", "ALREADY_ENABLED")
# The address is a source of no zone, or firewalld has no such zone.
_IS_ABSENT = ("UNKNOWN_SOURCE", "NOT_ENABLED", "INVALID_ZONE")


def is_running(bus: str) -> bool:
    """Return whether firewalld runs, as the bus says. Without a bus it does not."""
    if not may_exist(bus):
        return False
    try:
        with Bus(bus) as connection:
            return connection.has_owner(NAME)
    except BusError:
        return False


def admit(addresses: Sequence[IpAddress], zone: str, bus: str, undo: Undo) -> None:
    """Make addresses sources of a zone. Raise CniError 101."""
    added: list[IpAddress] = []
    undo.add(f"remove sources of firewalld zone {zone}", withdraw, added, zone, bus)
    try:
        with Bus(bus) as connection:
            for each in addresses:
                added.append(each)
                _add(connection, zone, each)
    except BusError as error:
        raise CniError(
            Code.FIREWALL, f"could not admit the container with firewalld: {error.msg}", _remedy(error, zone)
        ) from error


def _add(connection: Bus, zone: str, address: IpAddress) -> None:
    try:
        connection.call(_ZONES, "addSource", zone, _source(address))
    except BusError as error:
        if not error.reason.startswith(_IS_SET):
            raise


def _remedy(error: BusError, zone: str) -> str:
    if error.reason.startswith("INVALID_ZONE"):
        return f'Create the zone "{zone}" in firewalld, or correct "firewalldZone".'
    if error.reason.startswith("ZONE_CONFLICT"):
        return "Remove the address from the other zone of firewalld."
    return "Look at the log of firewalld."


def withdraw(addresses: Sequence[IpAddress], zone: str, bus: str) -> None:
    """Remove addresses from a zone. Without firewalld there is nothing to remove. Raise CniError 101."""
    if not addresses or not may_exist(bus):
        return
    errors = ErrorList()
    try:
        with Bus(bus) as connection:
            if connection.has_owner(NAME):
                for each in addresses:
                    errors.attempt(_remove, connection, zone, each)
    except BusError:
        # A bus that does not answer has no firewalld either that a call could reach.
        return
    errors.raise_any()


def _remove(connection: Bus, zone: str, address: IpAddress) -> None:
    try:
        connection.call(_ZONES, "removeSource", zone, _source(address))
    except BusError as error:
        if not error.reason.startswith(_IS_ABSENT):
            raise CniError(
                Code.FIREWALL, f"could not remove {address} from firewalld zone {zone}: {error.msg}"
            ) from error


def differences(addresses: Sequence[IpAddress], zone: str, bus: str) -> list[str]:
    """Return which addresses are no sources of the zone. Raise CniError 101."""
    try:
        with Bus(bus) as connection:
            return [
                f"{_source(each)} is no source of firewalld zone {zone}"
                for each in addresses
                if connection.call(_ZONES, "querySource", zone, _source(each)) != (True,)
            ]
    except BusError as error:
        raise CniError(Code.FIREWALL, f"could not ask firewalld: {error.msg}", "Start firewalld.") from error


def _source(address: IpAddress) -> str:
    return f"{address}/{address.max_prefixlen}"
