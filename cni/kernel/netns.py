"""Network namespaces as files: open one by path, enter it for a moment, detect whether it is gone.

`setns` moves the calling thread only, so a process that uses `Netns.entered` must have one thread. This
module does not touch the links of a namespace: `cni.kernel.rtnetlink` does, through a socket that was
opened inside.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Self

from cni import stops
from cni.errors import CniError, Code, KernelError

if TYPE_CHECKING:
    import ctypes
    from collections.abc import Iterator

_CLONE_NEWNET = 0x40000000
_NS_GET_NSTYPE = 0xB703  # ioctl_ns(2)
_SO_NETNS_COOKIE = 71  # <asm-generic/socket.h>
_NS_GET_MNTNS_ID = 0x8008B705  # <linux/nsfs.h>, since Linux 6.11
_OWN_PATH = "/proc/thread-self/ns/net"
_OWN_MOUNTS = "/proc/thread-self/ns/mnt"
# Errors of open(2) that prove that nothing is at a path. Others mean that the caller may not look.
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESRCH, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO})

_moves = 0


class Netns:
    """An open network namespace; `path` is the path that it was opened by.

    A context manager that closes the descriptor. The descriptor keeps the namespace alive until then.
    """

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self.fd = fd
        self.inode = os.fstat(fd).st_ino
        self._identity = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def identity(self) -> str:
        """Return what identifies the namespace until the next boot: device, inode and the kernel's cookie.

        The kernel reuses the inode of a namespace that is gone, and never a cookie (since Linux 5.14).
        """
        if self._identity:
            return self._identity
        # Only a call that saves or loads a record needs it.
        import socket

        status = os.fstat(self.fd)
        with self.entered(), socket.socket(socket.AF_UNIX) as inside:
            try:
                cookie = inside.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
            except OSError:
                cookie = b""
        self._identity = f"{status.st_dev}:{status.st_ino}:{int.from_bytes(cookie, sys.byteorder)}"
        return self._identity

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Enter the namespace for the `with` block. Raise CniError 100 if the kernel refuses.

        Keep the block short: no signal interrupts the call in it, because an undo would run in the wrong
        namespace.
        """
        with own() as home:
            stops.hold()
            try:
                self._enter()
                try:
                    yield
                finally:
                    _setns(home.fd)
            finally:
                stops.release()

    def _enter(self) -> None:
        try:
            _setns(self.fd)
        except OSError as error:
            doing = f'could not enter network namespace "{self.path}"'
            raise KernelError(doing, error.errno or errno.EIO) from error


def own() -> Netns:
    """Open the namespace that the calling thread is in."""
    return Netns(_OWN_PATH, os.open(_OWN_PATH, os.O_RDONLY | os.O_CLOEXEC))


def open_netns(path: str) -> Netns:
    """Open the namespace at `path`. Raise CniError 8 with the reason."""
    try:
        return Netns(path, _open(path))
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise CniError(
            Code.INVALID_NETNS,
            f'failed to open netns "{path}": failed to Statfs "{path}": {reason}',
            "/proc hides this process (hidepid): call the plugin with CAP_SYS_PTRACE"
            if _is_hidden(path)
            else "CNI_NETNS must be the path of a network namespace, as /run/netns/NAME or /proc/PID/ns/net",
        ) from error
    except _NotANetns as error:
        raise CniError(
            Code.INVALID_NETNS,
            f'failed to open netns "{path}": {error}',
            "there is a file at this path, but no network namespace is mounted on it",
        ) from error


def find(path: str) -> Netns | None:
    """Open the namespace at `path`; return None if there is none (see `is_gone`).

    Raise CniError 8 if it exists and may not be opened.
    """
    try:
        return Netns(path, _open(path)) if path else None
    except _NotANetns:
        return None
    except OSError as error:
        if is_absence(path, error):
            return None
    # Raises with the reason.
    return open_netns(path)


def is_gone(path: str) -> bool:
    """Return whether no namespace is at a path: it is "", missing, or another file.

    A lazy unmount or a reboot leaves a plain file in /run/netns.
    """
    if not path:
        return True
    try:
        os.close(_open(path))
    except _NotANetns:
        return True
    except OSError as error:
        return is_absence(path, error)
    return False


def is_absence(path: str, error: OSError) -> bool:
    """Return whether a refusal to open `path` proves that nothing is there in the caller's view of files."""
    return error.errno in _ABSENT and not _is_hidden(path)


def _is_hidden(path: str) -> bool:
    """Return whether `path` is of a process that is there and that /proc hides: see hidepid in proc(5)."""
    parts = path.split("/", 3)
    if len(parts) < 4 or parts[:2] != ["", "proc"] or not (parts[2].isascii() and parts[2].isdigit()):
        return False
    # /proc shows a zombie process, which has no namespace.
    if os.path.lexists(f"/proc/{parts[2]}"):
        return False
    try:
        # In the /proc of another PID namespace the number is another process's.
        if os.readlink("/proc/self") != str(os.getpid()):
            return False
        # 0 means the process group of the caller.
        if int(parts[2]) > 0:
            os.kill(int(parts[2]), 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return int(parts[2]) > 0


def is_own(path: str) -> bool:
    """Return whether `path` is the namespace of the calling thread; False if it cannot be opened."""
    try:
        return os.path.samestat(os.stat(path), os.stat(_OWN_PATH))
    except (OSError, ValueError):
        return False


def own_inode() -> int:
    """Return the inode of the calling thread's network namespace, which the kernel reuses in time."""
    return os.stat(_OWN_PATH).st_ino


@cache
def own_view() -> str:
    """Return what identifies the files that this process sees: its mount namespace and its root directory.

    The kernel reuses the inode of a mount namespace at once, its ID never.
    """
    root = os.stat("/")
    return f"{_mount_namespace()}:{root.st_dev}:{root.st_ino}"


def _mount_namespace() -> str:
    # As in `_open`.
    import fcntl

    fd = os.open(_OWN_MOUNTS, os.O_RDONLY | os.O_CLOEXEC)
    try:
        answer = fcntl.ioctl(fd, _NS_GET_MNTNS_ID, bytes(8))
    except OSError:
        found = os.fstat(fd)
        return f"inode {found.st_dev}:{found.st_ino}"
    finally:
        os.close(fd)
    return f"id {int.from_bytes(answer, sys.byteorder)}"


@contextmanager
def fresh() -> Iterator[None]:
    """Enter a new, empty namespace for the `with` block, to probe what the kernel can do."""
    with own() as home:
        try:
            _libc_call("unshare", _CLONE_NEWNET)
            yield
        finally:
            _setns(home.fd)


class _NotANetns(Exception):  # noqa: N818 - an answer of `_open`, never seen outside
    """The file exists and is no network namespace."""


def _open(path: str) -> int:
    # Here and below: a call without a namespace, as VERSION, needs neither fcntl nor ctypes.
    import fcntl

    # Without O_NONBLOCK a FIFO at this path would block for ever.
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except ValueError as error:
        raise OSError(errno.ENOENT, "path with a NUL byte") from error
    try:
        kind = fcntl.ioctl(fd, _NS_GET_NSTYPE)
    except OSError:
        os.close(fd)
        raise _NotANetns(f'unknown FS magic on "{path}": {_magic(path):x}') from None
    if kind != _CLONE_NEWNET:
        os.close(fd)
        raise _NotANetns(f'"{path}" is a namespace, but not one of the network kind')
    return fd


def _magic(path: str) -> int:
    """Return the f_type of statfs(2), which Python's os module lacks."""
    # As in `_open`.
    import ctypes

    buffer = (ctypes.c_long * 64)()
    ctypes.CDLL(None).statfs(os.fsencode(path), buffer)
    return int(buffer[0])


def moves() -> int:
    """Return how often this process has changed its namespace, so that a cache can detect a change."""
    return _moves


def _setns(fd: int) -> None:
    _libc_call("setns", fd, _CLONE_NEWNET)


@cache
def _libc() -> ctypes.CDLL:
    # As in `_open`.
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _libc_call(name: str, *args: int) -> None:
    # The os module has setns and unshare since Python 3.12.
    import ctypes

    global _moves  # noqa: PLW0603 - only this function counts
    _moves += 1
    if getattr(_libc(), name)(*args) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"could not change the network namespace: {os.strerror(number)}")
