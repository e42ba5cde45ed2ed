"""Kernel settings under /proc/sys/net, by keys like "net/ipv4/ip_forward".

Keys are those of the network namespace that the calling thread is in. A slash, not a dot, separates the
parts of a key, so that a link's name may contain dots. Every function refuses a key that leaves
/proc/sys/net. A key that a user has written goes through `parse_key` and to `read_configured` and
`ensure_configured`.

The kernel finds a link's settings among those of all namespaces of the machine, which takes milliseconds
if there are a thousand: open as few files here as possible.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.faults import point

if TYPE_CHECKING:
    from collections.abc import Callable

    _Opener = Callable[[str, int], int]

_ROOT = "/proc/sys/"
_LARGEST_BYTES = 4096
# A placeholder for the attachment's interface, as in the Go plugin tuning.
_IFNAME = "IFNAME"
# net/ipv4/conf/LINK/forwarding, net/ipv6/neigh/LINK/retrans_time: the folders of links, and where they are.
_LINK_FOLDERS = {"conf", "neigh"}
_BEFORE_LINK, _AFTER_LINK = 3, 1
_READ, _WRITE = os.O_RDONLY | os.O_CLOEXEC, os.O_WRONLY | os.O_CLOEXEC


def parse_key(text: str, ifname: str = "") -> str:
    """Return the key for what a configuration calls "net.ipv4.conf.IFNAME.forwarding". Raise CniError 7.

    Dots and slashes both separate, as in the Go plugin tuning. Between `conf` and the last part stands the
    name of one link, in which either may stand for a dot: Go accepts no link "eth0.100". "IFNAME" is
    replaced by `ifname`.
    """
    parts = text.replace("/", ".").split(".")
    if "" in parts or not text.isprintable():
        raise _invalid(text)
    if len(parts) > _BEFORE_LINK + _AFTER_LINK and parts[2] in _LINK_FOLDERS:
        parts[_BEFORE_LINK:-_AFTER_LINK] = [".".join(parts[_BEFORE_LINK:-_AFTER_LINK])]
    # The link's name is put in last: a dot in it separates nothing.
    key = "/".join(parts).replace(_IFNAME, ifname or _IFNAME, 1)
    if not _is_inside(key):
        raise _invalid(text)
    return key


def _is_inside(key: str) -> bool:
    first, *others = key.split("/")
    return first == "net" and bool(others) and not {"", ".", ".."}.intersection(others)


def _invalid(text: str) -> CniError:
    return CniError(
        Code.INVALID_CONFIG,
        f'invalid net sysctl key: "{text}"',
        'write a key below "net", as "net.ipv4.conf.IFNAME.forwarding" or "net/ipv4/ip_forward"',
    )


def read(key: str) -> str | None:
    """Return the value without white space around it, None if the kernel has no such key."""
    return _read(key, _open)


def read_configured(key: str) -> str | None:
    """Return the value of a key of `parse_key`, as `read` does. Raise CniError 7 for a symbolic link."""
    return _read(key, _open_configured)


def ensure(key: str, value: str) -> str | None:
    """Set a key unless it has the value already; return the old value if it was changed.

    Reading first makes a read-only /proc/sys harmless if the values are right. Raise CniError 100.
    """
    return _ensure(key, value, _open)


def ensure_configured(key: str, value: str) -> str | None:
    """Set a key of `parse_key` as `ensure` does. Raise CniError 7 for a symbolic link."""
    return _ensure(key, value, _open_configured)


def _read(key: str, open_key: _Opener) -> str | None:
    try:
        return _read_from(open_key(key, _READ))
    except (OSError, ValueError):
        return None


def _ensure(key: str, value: str, open_key: _Opener) -> str | None:
    old = _read(key, open_key)
    if old == value:
        return None
    try:
        _write_to(open_key(key, _WRITE), value)
    except OSError as error:
        raise _refused(key, value, old, error) from error
    return old


def set_if_possible(key: str, value: str) -> None:
    """Set a key that matters little: if that fails, the kernel's own value serves."""
    with suppress(OSError):
        _write_to(_open(key, _WRITE), value)


def _path(key: str) -> str:
    # A user may have chosen the link's name in a key.
    if not _is_inside(key):
        raise _invalid(key)
    return _ROOT + key


def _open(key: str, flags: int) -> int:
    return os.open(_path(key), flags)


def _open_configured(key: str, flags: int) -> int:
    """Open the file of a key, one folder after the other. Raise CniError 7 if a part is a symbolic link.

    The kernel makes none there, but what is mounted on a folder of /proc/sys may have some.
    """
    *folders, name = _path(key).removeprefix(_ROOT).split("/")
    folder = os.open(_ROOT, os.O_PATH | os.O_CLOEXEC)
    try:
        for each in folders:
            inner = os.open(each, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
            os.close(folder)
            folder = inner
        # O_NONBLOCK: a FIFO must not block us.
        return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENOTDIR}:
            raise _invalid(key) from error
        raise
    finally:
        os.close(folder)


def _read_from(fd: int) -> str:
    try:
        return os.read(fd, _LARGEST_BYTES).decode().strip()
    finally:
        os.close(fd)


def _write_to(fd: int, value: str) -> None:
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)
    point("sysctl.written")


def _refused(key: str, value: str, old: str | None, error: OSError) -> CniError:
    return CniError(
        Code.KERNEL,
        f"could not set sysctl {key} to {value}: {(error.strerror or str(error)).lower()}",
        "the kernel has no such setting here" if old is None else f"its value is {old}; set it by hand",
    )
