"""Processes that differ from a worker, and talk to its socket without a launcher."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.patience import LONG_S
from tests.warm import wire

if TYPE_CHECKING:
    from collections.abc import Callable

CLONE = {"net": 0x40000000, "mnt": 0x20000, "pid": 0x20000000, "user": 0x10000000}
NET_RAW = 13  # linux/capability.h
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
_PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 22, 24, 38, 47
_FILTER_MODE, _AMBIENT_RAISE = 2, 2
_libc = ctypes.CDLL(None, use_errno=True)


def _must(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def unshare(*kinds: str) -> None:
    """Enter new namespaces. A namespace of process IDs is for children, see `in_child`."""
    _must(_libc.unshare(sum(CLONE[kind] for kind in kinds)))


def _capabilities(which: int, change: Callable[[int], int]) -> None:
    """Change one of the effective, permitted and inheritable sets, by its number."""
    head = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, 0))
    sets = ctypes.create_string_buffer(24)
    _must(_libc.capget(head, sets))
    words = list(struct.unpack("=6I", sets.raw[:24]))
    words[which] = change(words[which])
    _must(_libc.capset(head, struct.pack("=6I", *words)))


def drop_effective() -> None:
    _capabilities(0, lambda word: word & ~(1 << NET_RAW))


def drop_permitted() -> None:
    drop_effective()
    _capabilities(1, lambda word: word & ~(1 << NET_RAW))


def add_inheritable() -> None:
    _capabilities(2, lambda word: word | 1 << NET_RAW)


def drop_bounding() -> None:
    _must(_libc.prctl(_PR_CAPBSET_DROP, NET_RAW, 0, 0, 0))


def add_ambient() -> None:
    add_inheritable()
    _must(_libc.prctl(_PR_CAP_AMBIENT, _AMBIENT_RAISE, NET_RAW, 0, 0))


def drop_all() -> None:
    """Drop all capabilities, as the first process of a container may do."""
    for number in range(64):
        _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
    _must(_libc.capset(struct.pack("=Ii", 0x20080522, 0), bytes(24)))


def set_no_new_privs() -> None:
    _must(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def set_filter() -> None:
    """Set a seccomp filter that allows everything."""
    allow = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000))
    program = struct.pack("@HP", 1, ctypes.addressof(allow))
    _must(_libc.prctl(_PR_SET_SECCOMP, _FILTER_MODE, program, 0, 0))


def chroot() -> None:
    """See the same files by the same paths, below another root directory."""
    Path("/run/r").mkdir()
    mount("/", "/run/r", _MS_BIND | _MS_REC)
    os.chroot("/run/r")
    os.chdir("/")


def mount(source: str, target: str, flags: int) -> None:
    _must(_libc.mount(source.encode(), target.encode(), b"none", flags, None))


def mount_proc() -> None:
    """Show the processes of a new namespace in place of all."""
    mount("none", "/", _MS_REC | _MS_PRIVATE)
    _must(_libc.mount(b"proc", b"/proc", b"proc", 0, None))


def mount_empty(folder: str) -> None:
    """Hide a folder behind an empty one."""
    _must(_libc.mount(b"tmpfs", folder.encode(), b"tmpfs", 0, None))


def be_confined() -> None:
    """Become root as in a container that may look at the host's /run: namespaces, no rights, read-only."""
    unshare("net", "mnt", "pid")
    mount("none", "/", _MS_REC | _MS_PRIVATE)
    mount("/run/pycni", "/run/pycni", _MS_BIND)
    mount("/run/pycni", "/run/pycni", _MS_BIND | _MS_REMOUNT | _MS_RDONLY)
    drop_all()
    set_no_new_privs()


def connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(LONG_S)
    connection.connect(path)
    return connection


def call_of(name: str, variables: dict[str, str], build: str = "test") -> bytes:
    texts = [f"{key}={value}" for key, value in variables.items()]
    return "\0".join(["PYCNI-WARM 1 22", build, name, f"/x/{name}", *texts, ""]).encode()


def ask(connection: socket.socket, call: bytes, stdin: str, output: str, right: int = 1) -> bytes:
    """Make a whole call as a launcher does. Return the bytes from the worker after its acceptance.

    If `right`, the value of the response token, is 0, the launcher counts as having given up.
    """
    try:
        connection.send(call)
        if _receive(connection) != wire.ACCEPTED:
            return b""
        with open(stdin, "rb") as given, open(output, "wb") as told:  # noqa: PTH123 - for their numbers
            others = [os.open("/", os.O_PATH), os.eventfd(right, os.EFD_NONBLOCK)]
            socket.send_fds(connection, [wire.GO], [given.fileno(), told.fileno(), told.fileno(), *others])
            for each in others:
                os.close(each)
        return _receive(connection)
    except BrokenPipeError:
        return _receive(connection)


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(10)
    except ConnectionResetError:
        # A message that came before the end is there still; else it is the end.
        return connection.recv(10)


def in_child(function: Callable[[], bytes]) -> bytes:
    """Run a function in a child, which is in the namespaces that are for children only."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, b"=" + function())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    assert answer[:1] == b"="
    return answer[1:]
