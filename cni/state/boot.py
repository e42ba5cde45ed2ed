"""Which boot this is, and when it began by the clock that files are stamped with.

What is in /run speaks of the kernel's state and ends with the boot. Where a /run is kept over one, in a
container or by hand, namespaces and rules that are gone would seem to be there: inode numbers come again. So
the folder that is ours holds the ID of the boot that it is of.

Network namespaces end with the boot, so what names one and was written before that is dead. The clock may
have been set since, by hours where a machine has none of its own, and what the kernel says is then wrong for
files of before that. They are as old as others of this boot, so the oldest of those counts where it is older.
Where a caller sees another /run or another clock that may be wrong still. So a lease is also kept if a link
of its holder is there.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cni.state import files
from cni.state.lock import locked

if TYPE_CHECKING:
    from pathlib import Path

# random(4): another one after each boot.
_ID = "/proc/sys/kernel/random/boot_id"
# What of a folder in /run is of one boot: the ledger of host ports, owners of elements, caches of leases.
_OF_ONE_BOOT = ("hostports", "nftables", "leases")
# Emptied at each boot, and filled from its first moments on.
_RUN = "/run"
# Both the kernel's second and the clock's small corrections are off by less.
_MARGIN_S = 2

# Folders that have been found to be of this boot: that lasts as long as a process can.
_known: set[str] = set()


def drop_earlier(folder: Path) -> bool:
    """Remove what an earlier boot has left in a folder of /run, and tell whether there was anything.

    The folder must exist. Raises CniError 11 or 106.
    """
    has_dropped = False
    if str(folder) in _known:
        return has_dropped
    this = _read_id()
    kept = folder / "boot"
    if this and files.read(kept) != this:
        with locked(folder / "boot.lock"):
            # Others of this boot may have been faster, and have put something there since.
            found = files.read(kept)
            # Without an ID it is new, or of a release that wrote none.
            if found not in {None, this}:
                has_dropped = True
                for name in _OF_ONE_BOOT:
                    _remove(folder / name)
            if found != this:
                files.write_atomic(kept, this)
    _known.add(str(folder))
    return has_dropped


def is_earlier(folder: Path) -> bool:
    """Tell whether a folder of /run is as an earlier boot has left it; changes nothing.

    Raises CniError 106.
    """
    this, kept = _read_id(), files.read(folder / "boot")
    return bool(this) and kept not in {None, this}


def _read_id() -> bytes:
    try:
        with open(_ID, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _remove(path: Path) -> None:
    import shutil

    if path.is_symlink():
        files.remove(path)
    # What cannot be removed is refused by whoever uses it.
    shutil.rmtree(path, ignore_errors=True)


def began_s() -> float:
    """Give a moment before which nothing of this boot was written, in seconds as st_ctime; 0 for unknown."""
    try:
        return min(_kernels_s(), _oldest_s(_RUN)) - _MARGIN_S
    except (OSError, ValueError):
        return 0


def _kernels_s() -> float:
    # proc(5): the line "btime 1700000000".
    with open("/proc/stat", encoding="ascii") as lines:
        return next((float(line.split()[1]) for line in lines if line.startswith("btime ")), 0)


def _oldest_s(folder: str) -> float:
    with os.scandir(folder) as entries:
        return min((each.stat(follow_symlinks=False).st_ctime for each in entries), default=0)
