"""A pytest plugin that keeps the folders of tests in memory during a run with several workers.

The tests make and remove a million small files, and ext4 takes long to find an inode that was not removed a
moment ago: 6 % of all CPU time. The file system in memory is mounted for this process and its
children only. It vanishes with them, and with it the folders of tests that failed.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cni.testing.holder import enter_private_mounts

if TYPE_CHECKING:
    import pytest

# pytest reads it when the first test asks for a folder.
VARIABLE = "PYTEST_DEBUG_TEMPROOT"
# More than a run takes: 0.3 GiB for its folders, and some for its processes.
NEEDED = 8 << 30


def pytest_configure(config: pytest.Config) -> None:
    """Choose the place of pytest's folders, unless the user has."""
    is_worker = hasattr(config, "workerinput")
    if config.getoption("numprocesses", None) and not is_worker and VARIABLE not in os.environ:
        use_memory(config)


def use_memory(config: pytest.Config) -> None:
    """Keep the folders in memory, if there is enough and this user may mount it."""
    if os.geteuid() or available() < NEEDED:
        return
    folder = Path(tempfile.mkdtemp(prefix="pycni-tests-"))
    try:
        unmount = enter_private_mounts(folder)
    except OSError:
        folder.rmdir()
        return
    os.environ[VARIABLE] = str(folder)

    def end() -> None:
        unmount()
        folder.rmdir()

    config.add_cleanup(end)


def available() -> int:
    """Return the bytes of memory that programs can have without swapping; 0 if unknown (proc_meminfo(5))."""
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0
