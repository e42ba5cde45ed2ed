"""A pytest plugin that keeps the folders of tests in memory, where there is enough of it.

The tests make and remove a million small files. On ext4 the kernel looks long for an inode that was not
removed a moment ago: a fortieth of the whole run.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

SHARED = Path("/dev/shm")  # noqa: S108 - pytest makes a folder there that only this user can enter
# pytest reads it when the first test asks for a folder.
VARIABLE = "PYTEST_DEBUG_TEMPROOT"
FREE, AVAILABLE = 4 << 30, 8 << 30


def pytest_configure() -> None:
    """Choose the place of pytest's folders, unless the user has."""
    if VARIABLE not in os.environ and "PYTEST_XDIST_WORKER" not in os.environ and has_room():
        os.environ[VARIABLE] = str(SHARED)


def has_room() -> bool:
    """Return whether there is a file system in memory with room for all tests, from which programs run."""
    with suppress(OSError):
        flags = os.statvfs(SHARED).f_flag
        is_usable = os.access(SHARED, os.W_OK) and not flags & os.ST_NOEXEC
        return is_usable and shutil.disk_usage(SHARED).free >= FREE and _available() >= AVAILABLE
    return False


def _available() -> int:
    """Return the bytes of memory that programs can have without swapping (proc_meminfo(5))."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, value = line.split()[:2]
        if name == "MemAvailable:":
            return int(value) * 1024
    return 0
