"""Moments at which a test may end, stop or pause the process: after each change to kernel, files and rules.

They stand where such changes pass, not in the plugins, so that no step of any plugin lacks one. Nothing in
an installed suite can switch them on: it takes a call of `arm`, and only `cni.testing`, which is not
installed, has one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# What has just been done. An ADD comes by each many times.
POINTS = {
    "lock.taken": "a lock was taken, its file made if it was missing",
    "store.folder-made": "a folder was made",
    "store.unfinished": "a file's content lies beside it, under another name",
    "store.written": "a file was made or replaced",
    "store.removed": "a file was removed",
    "index.changed": "the cache of a pool's leases was changed",
    "netlink.changed": "links, addresses, routes or settings were changed: one send, of one change or many",
    "netlink.gone": "the kernel has told that a link is gone, and has not acknowledged its removal yet",
    "nftables.committed": "a transaction of nftables was committed",
    "conntrack.forgotten": "a tracked connection was forgotten",
    "process.started": "a child has all its input, and works",
    "process.ended": "a child has ended: a transaction of iptables, a script of nft, another plugin",
    "sysctl.written": "a setting under /proc/sys was written",
    "answer.written": "the answer of an ADD is on its way, and nothing is undone from here on",
}

_meet: Callable[[str], None] | None = None


def point(name: str) -> None:
    """Be at one of `POINTS`; does nothing but in a process that a test has armed."""
    if _meet is not None:
        _meet(name)


def arm(meet: Callable[[str], None]) -> None:
    """Have `meet` called with the name of each point from now on; for tests."""
    global _meet  # noqa: PLW0603 - the one switch, of the process
    _meet = meet
