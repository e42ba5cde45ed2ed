"""Hear when a file is closed, inotify(7): Python's library has no call for it."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

from cni.errors import CniError, Code

_IN_CLOSE = 0x18
_EVENT_BYTES = 1 << 12


class ClosedFile:
    """A descriptor that becomes readable when any process closes a file. Raise CniError 106.

    The file must exist. The kernel follows the file, not its name: it is heard in every mount namespace.
    """

    def __init__(self, path: str) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = int(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        if self._fd < 0 or libc.inotify_add_watch(self._fd, os.fsencode(path), _IN_CLOSE) < 0:
            reason = os.strerror(ctypes.get_errno()).lower()
            self.close()
            raise CniError(Code.STORE, f"could not watch {path}: {reason}")

    def fileno(self) -> int:
        """Return the descriptor, for poll(2)."""
        return self._fd

    def read(self) -> bool:
        """Return whether the file was closed since the last call."""
        with suppress(BlockingIOError):
            return bool(os.read(self._fd, _EVENT_BYTES))
        return False

    def close(self) -> None:
        """Stop listening; twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
