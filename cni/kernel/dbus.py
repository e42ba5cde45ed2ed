"""Calls of services on the system bus (D-Bus), over one connection that lives as long as a call needs it.

The library for D-Bus is imported when a bus exists: most calls of plugins need none, and a cold start pays
for each module. A warm server imports it before it forks.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from cni.errors import CniError, Code

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jeepney.io.blocking import DBusConnection

USUAL = "unix:path=/var/run/dbus/system_bus_socket"
_CONNECT_S = 5.0
# A service that is restarting, or that loads its rules again, answers when it has finished.
_ANSWER_S = 30.0


class Service(NamedTuple):
    """An object of a service, and the interface whose methods are called."""

    name: str
    path: str
    interface: str


class BusError(CniError):
    """The bus, or a service on it, refused a call. `name` is the error's, "" for a failure of the bus."""

    def __init__(self, msg: str, name: str = "", reason: str = "") -> None:
        super().__init__(Code.IO_FAILURE, msg)
        self.name = name
        self.reason = reason


def find_bus(env: Mapping[str, str]) -> str:
    """Return the address of the system bus that an environment names, "" for the usual one."""
    return env.get("DBUS_SYSTEM_BUS_ADDRESS", "")


def may_exist(address: str) -> bool:
    """Return whether the socket of a bus exists. An address without a path may stand for one.

    `address` is that of D-Bus ("unix:path=/run/bus"), "" for the usual one.
    """
    first = (address or USUAL).split(";")[0]
    kind, _, options = first.partition(":")
    path = next((each[5:] for each in options.split(",") if each.startswith("path=")), "")
    return kind == "unix" and (not path or Path(path).exists())


def prepare_for_fork() -> None:
    """Import the library for D-Bus on a host with a system bus."""
    if may_exist(""):
        import jeepney.io.blocking  # noqa: F401 - as at the top of this module


class Bus:
    """A connection to a bus, for a `with` block. Raise BusError."""

    def __init__(self, address: str) -> None:
        from jeepney.io.blocking import open_dbus_connection

        self._connection: DBusConnection
        try:
            self._connection = open_dbus_connection(address or USUAL, auth_timeout=_CONNECT_S)
        except Exception as error:
            # The library raises errors of many kinds for what a bus may do: refuse, be silent, say nonsense.
            raise BusError(f"could not connect to the system bus: {_words(error)}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def has_owner(self, name: str) -> bool:
        """Return whether a service with a name runs."""
        bus = Service("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
        return self.call(bus, "NameHasOwner", name) == (True,)

    def call(self, service: Service, method: str, *arguments: str | int) -> tuple[Any, ...]:
        """Call a method with strings and numbers of 32 bits, and return the values of its answer."""
        from jeepney import DBusAddress, HeaderFields, MessageType, new_method_call

        address = DBusAddress(service.path, bus_name=service.name, interface=service.interface)
        signature = "".join("s" if isinstance(each, str) else "i" for each in arguments)
        message = new_method_call(address, method, signature, arguments)
        try:
            answer = self._connection.send_and_get_reply(message, timeout=_ANSWER_S)
        except Exception as error:
            raise BusError(f"could not call {method} of {service.name}: {_words(error)}") from error
        if answer.header.message_type == MessageType.error:
            name = answer.header.fields.get(HeaderFields.error_name, "")
            reason = " ".join(each for each in answer.body if isinstance(each, str)) or name
            raise BusError(f"{service.name} refused {method}: {reason}", name, reason)
        return tuple(answer.body)


def _words(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
