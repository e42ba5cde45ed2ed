"""State that ends with the boot, and the moment when this boot began.

/run is empty after a boot. A container, or a user, may keep its content over a boot. Then state names
namespaces and rules that no longer exist, and inode numbers are reused. So the file `boot` of /run/pycni
holds the ID of the boot, and the first call of another boot removes the content of all folders there. A
module or plugin that keeps state in a folder of its own in /run/pycni has nothing else to declare. Two
things stay:

- files named `*.lock`, because a process of this boot may hold them already;
- the folder of the warm server, which a server of this boot may be using. It replaces stale files itself.

Network namespaces end with the boot, so a file that names one and was written before the boot is stale. The
clock may have been stepped since boot, by hours on a machine without an RTC. The kernel's btime is then
wrong for files that were written before the step. So `began_s` takes the earlier of btime and the oldest
entry in /run. A caller that sees another /run or another clock may still get a wrong moment. So a lease is
also valid if a link of its holder exists.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from cni.state import files
from cni.state.lock import locked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# random(4): the kernel generates another ID at each boot.
_ID = "/proc/sys/kernel/random/boot_id"
# Stay, see above.
_WARM_SERVER, _LOCK = "warm", ".lock"
# Emptied at each boot, and filled from its first moments on.
_RUN = "/run"
# More than the kernel's rounding of btime and the clock's small corrections.
_MARGIN_S = 2

# Folders that hold the ID of this boot, which does not change while a process runs.
_current: set[str] = set()


@contextmanager
def locked_state(path: Path) -> Iterator[None]:
    """Hold the lock on a file of /run/pycni, which is made, without state of an earlier boot.

    Raise CniError 11 or 106.
    """
    files.ensure_directory(path.parent)
    drop_earlier(path.parent)
    with locked(path):
        yield


def drop_earlier(folder: Path) -> bool:
    """Remove the state of an earlier boot from `folder`, /run/pycni; return whether there was any.

    The folder must exist. Raise CniError 11 or 106.
    """
    has_dropped = False
    if str(folder) in _current:
        return has_dropped
    this = _read_id()
    path = folder / "boot"
    if this and files.read(path) != this:
        with locked(folder / "boot.lock"):
            # Another process of this boot may have dropped it meanwhile, and may have written state since.
            written = files.read(path)
            # Without an ID the folder is new, or of a release that wrote none.
            if written not in {None, this}:
                has_dropped = True
                _drop_state(folder)
            if written != this:
                files.write_atomic(path, this)
    _current.add(str(folder))
    return has_dropped


def is_earlier(folder: Path) -> bool:
    """Return whether the state in `folder`, /run/pycni, is of an earlier boot; change nothing.

    Raise CniError 106.
    """
    this, written = _read_id(), files.read(folder / "boot")
    return bool(this) and written not in {None, this}


def _read_id() -> bytes:
    try:
        with open(_ID, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _drop_state(folder: Path) -> None:
    # A module that uses state reports what could not be removed here.
    with suppress(OSError), os.scandir(folder) as entries:
        for each in entries:
            if each.is_symlink():
                _remove_file(each.path)
            elif each.is_dir() and each.name != _WARM_SERVER:
                _drop_content(each.path)


def _drop_content(folder: str) -> None:
    """Remove a folder; one with locks in it stays with these."""
    # Symbolic links are removed and not followed: they are among the files.
    for parent, folders, names in os.walk(folder, topdown=False):
        for name in [*names, *folders]:
            path = f"{parent}/{name}"
            if name not in names and not os.path.islink(path):
                continue
            if not name.endswith(_LOCK):
                _remove_file(path)
        with suppress(OSError):
            os.rmdir(parent)


def _remove_file(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)


def began_s() -> float:
    """Return a moment before which nothing of this boot was written, in seconds as st_ctime; 0 if unknown."""
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
