"""Whether there can be a system bus, before the library for D-Bus is imported."""

from __future__ import annotations

from pathlib import Path

USUAL = "unix:path=/var/run/dbus/system_bus_socket"


def may_exist(address: str) -> bool:
    """Return whether the socket of a bus exists. An address that is not a path may stand for one."""
    first = (address or USUAL).split(";")[0]
    kind, _, options = first.partition(":")
    path = next((each[5:] for each in options.split(",") if each.startswith("path=")), "")
    return kind == "unix" and (not path or Path(path).exists())
