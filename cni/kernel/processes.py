"""Processes in namespaces of their own: unshare(2), the first process of a PID namespace, its end.

`ctypes` is imported in functions: no call of a plugin starts such a process.
"""

from __future__ import annotations

import errno
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

from cni.errors import KernelError

if TYPE_CHECKING:
    from typing import Any

# <linux/sched.h>
MOUNTS, HOSTNAME, NETWORK = 0x00020000, 0x04000000, 0x40000000
_PIDS = 0x20000000
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # prctl(2)
_CHILD = "child"


def unshare(flags: int) -> None:
    """Move this process to new namespaces: MOUNTS, HOSTNAME, NETWORK. Raise CniError 100."""
    _call("could not create namespaces", "unshare", flags)


def fork_first() -> int:
    """Fork the first process of a new PID namespace. Return its ID, in the child 0. Raise CniError 100.

    When it ends, the kernel kills all other processes of the namespace and waits for their end. It is killed
    when this process ends, which must have one thread.
    """
    reader, writer = os.pipe()
    gate, opener = os.pipe()
    try:
        # Later children of the process that makes the namespace are in it, too, and a process in a user
        # namespace cannot return. So a process in between makes it. When that ends, its child becomes ours.
        _call("could not adopt a process", "prctl", _PR_SET_CHILD_SUBREAPER, 1)
        between = os.fork()
        if between == 0:
            _fork_between(writer)
            # Each side sees the end of the other.
            os.close(writer)
            os.close(opener)
            _follow_parent(gate)
            return 0
        os.close(writer)
        answer = os.read(reader, 32)
        os.waitpid(between, 0)
        _call("could not adopt a process", "prctl", _PR_SET_CHILD_SUBREAPER, 0)
        kind, _, number = answer.decode().partition(" ")
        if kind != _CHILD:
            raise KernelError("could not create a PID namespace", int(number or errno.EAGAIN))
        os.write(opener, b"!")
        return int(number)
    except OSError as error:
        raise KernelError("could not start a process", error.errno or 0) from error
    finally:
        for fd in (reader, writer, gate, opener):
            with suppress(OSError):
                os.close(fd)


def _fork_between(writer: int) -> None:
    """Report the ID of a child in a new PID namespace to a pipe, and end. Return in the child."""
    answer = f"error {errno.EAGAIN}"
    try:
        unshare(_PIDS)
        child = os.fork()
        if child == 0:
            return
        answer = f"{_CHILD} {child}"
    except KernelError as error:
        answer = f"error {error.errno}"
    except OSError as error:
        answer = f"error {error.errno}"
    os.write(writer, answer.encode())
    os._exit(0)


def _follow_parent(gate: int) -> None:
    """Let the kernel kill this process when its parent ends, as soon as that has adopted it."""
    if not os.read(gate, 1):
        os._exit(0)
    _call("could not follow the parent process", "prctl", _PR_SET_PDEATHSIG, signal.SIGKILL)


def _call(doing: str, name: str, *arguments: int) -> None:
    import ctypes

    library: Any = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*map(ctypes.c_ulong, arguments)) != 0:
        raise KernelError(doing, ctypes.get_errno())
