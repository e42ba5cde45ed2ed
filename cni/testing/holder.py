"""The process that holds a host's namespaces: it makes them by system calls, then waits for the end.

Programs (unshare, mount, ip) would take four times as long, and each host needs eight of them.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cni.testing import agent
from cni.testing.namespaces import checked

if TYPE_CHECKING:
    from collections.abc import Callable

# unshare(2), mount(2) and netdevice(7).
_NEW_MOUNTS, _NEW_USER, _NEW_NET = 0x00020000, 0x10000000, 0x40000000
_BIND, _REC, _PRIVATE, _SHARED = 0x1000, 0x4000, 1 << 18, 1 << 20
_DETACH = 2
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 1
# A new namespace inherits the machine's forwarding, which may be on.
_FORWARDING = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")
_NAMED = "/run/netns"


class Holder:
    """A process with a private network and mount namespace. It ends with the test process in any case."""

    def __init__(self, *, own_user: bool) -> None:
        said, writer = os.pipe()
        reader, self._lifeline = os.pipe()
        agent.own().start(agent.pack(_hold, own_user), [writer, reader])
        os.close(writer)
        os.close(reader)
        with os.fdopen(said, "rb") as pipe:
            answer = json.loads(pipe.readline() or '{"error": "its process ended"}')
        if "error" in answer:
            os.close(self._lifeline)
            raise RuntimeError(f"could not set up a private namespace: {answer['error']}")
        agent.Agent.cpu_s += answer["cpu_s"]
        self.pid: int = answer["pid"]
        self._process = agent.Child(self.pid)
        self._is_closed = False

    def is_alive(self) -> bool:
        """Return whether the process still runs."""
        return not self._is_closed and self._process.is_alive()

    def close(self) -> None:
        """End the process, and with it the namespaces."""
        if not self._is_closed:
            self._is_closed = True
            self._process.end()
            os.close(self._lifeline)


def _hold(fds: list[int], own_user: bool) -> None:  # noqa: FBT001 - packed as a position
    said, lifeline = fds
    # A terminal sends it to all processes, and the test process needs the namespaces to clean up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _enter_new(own_user=own_user)
        answer: dict[str, object] = {"pid": os.getpid(), "cpu_s": agent.cpu_s()}
    except OSError as error:
        answer = {"error": str(error)}
    os.write(said, json.dumps(answer).encode() + b"\n")
    os.close(said)
    os.read(lifeline, 1)


def _enter_new(*, own_user: bool) -> None:
    uid, gid = os.geteuid(), os.getegid()
    _unshare(_NEW_MOUNTS | _NEW_NET | (_NEW_USER if own_user else 0))
    if own_user:
        for file, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            Path("/proc/self", file).write_text(text)
    os.umask(0o022)
    os.chdir("/")
    _mount("none", "/", _REC | _PRIVATE)
    # Empty directories are mounted over the machine's own state. If the machine has no such directory, the
    # directory above is covered instead of creating one on the machine, /etc with links to its entries.
    if not os.path.isdir("/var/lib/cni"):  # noqa: PTH112 - pathlib takes longer, here and below
        _mount_empty("/var/lib")
        os.mkdir("/var/lib/cni")  # noqa: PTH102
    if not os.path.isdir("/etc/cni"):  # noqa: PTH112
        _mount("/etc", "/mnt", _BIND | _REC)
        _mount_empty("/etc")
        for name in os.listdir("/mnt"):  # noqa: PTH208
            os.symlink(f"/mnt/{name}", f"/etc/{name}")  # noqa: PTH211
        os.mkdir("/etc/cni")  # noqa: PTH102
    for path in ("/var/lib/cni", "/etc/cni", "/run"):
        _mount_empty(path)
    os.mkdir(_NAMED)  # noqa: PTH102
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as kernel:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack_from("H", fcntl.ioctl(kernel, _GET_FLAGS, request), 16)[0]
        fcntl.ioctl(kernel, _SET_FLAGS, struct.pack("16sH14x", b"lo", flags | _UP))
    for key in _FORWARDING:
        with suppress(OSError):
            Path("/proc/sys/net", key).write_text("0")


def enter_private_mounts(folder: Path) -> Callable[[], None]:
    """Mount a file system in memory on a folder, for this process and its children. Return what unmounts it.

    Raise OSError if it cannot be mounted.
    """
    _unshare(_NEW_MOUNTS)
    _mount("none", "/", _REC | _PRIVATE)
    _mount("tmpfs", str(folder), 0, "tmpfs", "mode=700")
    return partial(_unmount, str(folder))


def add_namespace(name: str) -> None:
    """Do what `ip netns add` does."""
    try:
        _mount("none", _NAMED, _SHARED | _REC)
    except OSError:
        _mount(_NAMED, _NAMED, _BIND | _REC)
        _mount("none", _NAMED, _SHARED | _REC)
    path = f"{_NAMED}/{name}"
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
    _unshare(_NEW_NET)
    _mount("/proc/thread-self/ns/net", path, _BIND)


def delete_namespace(name: str) -> None:
    """Do what `ip netns delete` does."""
    path = f"{_NAMED}/{name}"
    # There is no mount if a test has replaced it.
    with suppress(OSError):
        _unmount(path)
    os.unlink(path)  # noqa: PTH108


def _mount_empty(path: str) -> None:
    _mount("tmpfs", path, 0, "tmpfs", "mode=755")


def _mount(source: str, path: str, flags: int, kind: str = "none", options: str = "") -> None:
    args = (source.encode(), path.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode())
    checked(_libc().mount(*args), f"mount {path}")


def _unmount(path: str) -> None:
    checked(_libc().umount2(path.encode(), _DETACH), f"unmount {path}")


def _unshare(flags: int) -> None:
    checked(_libc().unshare(flags), "make namespaces")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
