"""Names that another program keeps in a file in the format of hosts(5): its containers are served, too."""

from __future__ import annotations

import os
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cni.dns.names import Key, Record, normal_name
from cni.errors import CniError
from cni.state import files

if TYPE_CHECKING:
    from cni.dns.book import Zone

# Inode, time and size.
Stamp = tuple[int, int, int]
NO_FILE: Stamp = (0, 0, 0)


def stamp(path: str) -> Stamp:
    """Return what changes with a file; NO_FILE if there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - looked at with each request
    except OSError:
        return NO_FILE
    return status.st_ino, status.st_mtime_ns, status.st_size


def read(zone: Zone) -> list[Record]:
    """Return the records of a zone's file. Skip addresses outside of the network, and names that are none."""
    try:
        content = files.read(zone.settings.hosts) or b""
    except CniError:
        return []
    found = []
    for line in content.decode(errors="replace").splitlines():
        address, *names = line.split() or [""]
        with suppress(ValueError):
            shown = ip_address(address)
            valid = tuple(dict.fromkeys(_valid(names)))
            if valid and any(shown in subnet for subnet in zone.subnets):
                key = Key(zone.network, "", str(shown))
                found.append(Record(key, valid, (str(shown),), zone.settings))
    return found


def _valid(names: list[str]) -> list[str]:
    valid = []
    for each in names:
        with suppress(ValueError):
            valid.append(normal_name(each))
    return valid


def write_pid(path: str) -> None:
    """Write this process's ID for those who change the file; do nothing where its folder is gone."""
    own = f"{os.getpid()}\n".encode()
    with suppress(CniError):
        if os.path.isdir(os.path.dirname(path)) and files.read(path) != own:  # noqa: PTH112, PTH120
            files.write_atomic(path, own, 0o644)
