"""When this boot began, by the clock that files are stamped with.

Network namespaces end with the boot, so what names one and was written before that is dead. The clock may
have been set since, by hours where a machine has none of its own, and what the kernel says is then wrong for
files of before that. They are as old as others of this boot, so the oldest of those counts where it is older:
nothing that is alive is taken for dead.
"""

from __future__ import annotations

import os

# Emptied at each boot, and filled from its first moments on.
_RUN = "/run"
# Both the kernel's second and the clock's small corrections are off by less.
_MARGIN_S = 2


def began_s() -> float:
    """Give a moment before which nothing of this boot was written, in seconds as st_ctime; 0 for unknown."""
    try:
        return min(_kernels_s(), _oldest_s(_RUN)) - _MARGIN_S
    except (OSError, ValueError):
        return 0


def _kernels_s() -> float:
    # proc(5): the line "btime 1700000000".
    with open("/proc/stat", encoding="ascii") as lines:  # noqa: PTH123 - pathlib reads all, which is long
        return next((float(line.split()[1]) for line in lines if line.startswith("btime ")), 0)


def _oldest_s(folder: str) -> float:
    with os.scandir(folder) as entries:
        return min((each.stat(follow_symlinks=False).st_ctime for each in entries), default=0)
