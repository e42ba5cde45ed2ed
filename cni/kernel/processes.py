"""Processes in namespaces of their own: unshare(2), the first process of a PID namespace, its end.

`ctypes` is imported in functions: no call of a plugin starts such a process.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from cni.errors import KernelError

if TYPE_CHECKING:
    from typing import Any

# <linux/sched.h>
MOUNTS, HOSTNAME, NETWORK = 0x00020000, 0x04000000, 0x40000000
_PIDS = 0x20000000
_PR_SET_PDEATHSIG = 1  # prctl(2)


def unshare(flags: int) -> None:
    """Move this process to new namespaces: MOUNTS, HOSTNAME, NETWORK. Raise CniError 100."""
    _call("could not create namespaces", "unshare", flags)


def fork_first() -> int:
    """Fork the first process of a new PID namespace. Return its ID, in the child 0. Raise CniError 100.

    When it ends, the kernel kills all other processes of the namespace and waits for their end. Later
    children of this process are in the namespace of this process. It must have one thread.
    """
    home = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call("could not create a PID namespace", "unshare", _PIDS)
        # Not 0, for the case that fork(2) fails.
        child = -1
        try:
            child = os.fork()
        finally:
            if child:
                _call("could not return to the PID namespace", "setns", home, _PIDS)
    except OSError as error:
        raise KernelError("could not start a process", error.errno or 0) from error
    finally:
        os.close(home)
    return child


def end_with_parent() -> None:
    """Let the kernel kill this process when its parent ends. A parent that has ended already is not seen."""
    _call("could not follow the parent process", "prctl", _PR_SET_PDEATHSIG, signal.SIGKILL)


def _call(doing: str, name: str, *arguments: int) -> None:
    import ctypes

    library: Any = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*map(ctypes.c_ulong, arguments)) != 0:
        raise KernelError(doing, ctypes.get_errno())
