"""Points at which a test may kill, stop or pause the process: after each change to kernel, files and rules.

The points are in the library's functions that make such changes, not in the plugins, so that no step of a
plugin lacks one. An installed suite cannot enable them: only `cni.testing` calls `arm`, and is not installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# The change that was just made. An ADD reaches each point many times.
POINTS = {
    "lock.taken": "a lock was taken; its file was created if it was missing",
    "store.folder-made": "a folder was created",
    "store.unfinished": "the new content of a file was written beside it, under another name",
    "store.written": "a file was created or replaced",
    "store.removed": "a file was removed",
    "index.changed": "the cache of a pool's leases was changed",
    "netlink.changed": "links, addresses, routes or settings were changed: one send, of one change or many",
    "netlink.gone": "a link is gone: the kernel has announced that, or acknowledged the removal before",
    "nftables.committed": "a transaction of nftables was committed",
    "conntrack.forgotten": "a tracked connection was deleted",
    "process.started": "a child process has its input and runs",
    "process.ended": "a child process ended: a transaction of iptables, a script of nft, another plugin",
    "sysctl.written": "a setting under /proc/sys was written",
    "answer.written": "the answer of an ADD was written; nothing is undone from here on",
}

_meet: Callable[[str], None] | None = None


def point(name: str) -> None:
    """Mark one of `POINTS`. It does nothing unless a test has armed the process."""
    if _meet is not None:
        _meet(name)


def arm(meet: Callable[[str], None]) -> None:
    """Call `meet` with the name of each point from now on; for tests."""
    global _meet  # noqa: PLW0603 - one for the process
    _meet = meet
