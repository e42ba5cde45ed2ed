"""Calls whose launcher was killed: their workers end soon, and may change something until then.

A runtime that kills a launcher may call DEL at once. The worker ends when the system call that it is in has
returned, which may be the one that creates a link or commits rules, and on a busy host not before it gets a
core. A DEL that did not wait for that would leave what comes after it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from cni.warm.log import log
from cni.warm.scoreboard import Running

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cni.warm.scoreboard import Slot

_PAUSE_S = 0.001
# A stopped process must not keep a container from being deleted.
_LIMIT_S = 5


def describe(env: Mapping[str, str], launcher: int) -> Running:
    """Return the entry of a call for the scoreboard."""
    container = env.get("CNI_CONTAINERID")
    # Workers are forks of one process, so that their hashes are the same.
    return Running(hash((container, env.get("CNI_IFNAME"))) if container else 0, launcher)


def wait(slot: Slot, call: Running) -> None:
    """Wait until no worker serves an abandoned call for the attachment of `call`; for 5 s at most.

    A call without an attachment, as GC, concerns all of them.
    """
    deadline = time.monotonic() + _LIMIT_S
    while any(_concerns(other, call) and has_ended(other.launcher) for other in slot.others()):
        if time.monotonic() > deadline:
            log("going on beside a worker whose launcher was killed: it does not end")
            return
        time.sleep(_PAUSE_S)


def _concerns(other: Running, call: Running) -> bool:
    return other.attachment == call.attachment or 0 in (other.attachment, call.attachment)


def has_ended(pid: int) -> bool:
    """Return whether a process is gone, or is a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1]
    except OSError:
        return True
    return state in b"ZX"
