"""An index of leases by attachment, so that a call need not read all leases of a large pool.

Each attachment has one symbolic link, named after its hash. The link's target lists its lease files. A
stamp beside the links records the state of two directories, of the leases and of the links, for which the
index is complete. A pool with less than `MANY` leases has no index. Reading 10,000 leases takes 180 ms, the
index 0.1 ms.

Why the index is reliable:

- A caller reads each lease file that the index names. So a wrong entry has no effect.
- The index is complete as long as only this suite has modified the two directories. A file that appears or
  disappears sets a directory's mtime and ctime. We set the mtime to a moment in the past, so that a change
  in the same clock tick is detected, too. A restored backup may set the mtime back, but no program can set
  the ctime. Lost or forged links are detected in the same way, and another directory of the same name by
  its inode.
- A crash cannot leave a stale stamp. The stamp is deleted before the mtimes are rewritten and recreated
  afterwards; any change before that has already altered the mtimes. Links change before files appear and
  after they disappear. In between, the index names a file too many, which is read.
- A pool with an unreadable lease has no index, because the index would lack that lease.
- The index ends with the boot (`cni.state.boot`).

Two changes by hand, without the lock, stay undetected until the next one: a file that appears or disappears
while one of our calls holds the lock, and a file whose content is replaced in place. So DEL and CHECK also
read the files of the addresses in their result. An address with a file is never given to a second
container.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from cni.errors import CniError
from cni.faults import point
from cni.state import boot, files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cni.ipam.leases import Lease
    from cni.request import Attachment

FOLDER = Path("/run/pycni/leases")
MANY = 32
# The mtime that the directories get, as time before now, and the error of a file system that rounds it.
_PAST_NS = 5_000_000_000
_ROUNDED_NS = 2_000_000_000


class LeaseIndex:
    """The index of one directory of leases. Hold the directory's lock to change it.

    `is_current` is whether the index matches the directory; changes are recorded only then.
    """

    def __init__(self, folder: Path) -> None:
        self._leases = folder
        self._links = f"{FOLDER}/{_hash_of(str(folder))}"
        self._stamp = f"{self._links}.stamp"
        self.is_current = False

    def look(self) -> bool:
        """Return whether the index matches the directory now."""
        try:
            stamp = os.readlink(self._stamp)
            boot.drop_earlier(FOLDER.parent)
            self.is_current = stamp == self._identity()[0]
        except (OSError, CniError):
            self.is_current = False
        return self.is_current

    def _identity(self) -> tuple[str, int]:
        """Return the state of the two directories, and the later one of their mtimes."""
        states = [os.stat(folder) for folder in (self._leases, self._links)]
        texts = [f"{each.st_dev}:{each.st_ino}:{each.st_mtime_ns}:{each.st_ctime_ns}" for each in states]
        return " ".join(texts), max(each.st_mtime_ns for each in states)

    def find(self, owner: Attachment) -> list[str]:
        """Return the names of an attachment's files, and of files that name its container only.

        Raise OSError for anything but a link of ours.
        """
        names = [*self._read(owner.container_id, owner.ifname), *self._read(owner.container_id, "")]
        return list(dict.fromkeys(names))

    def add(self, owner: Attachment, name: str) -> None:
        """Record a file of an attachment that is about to be created."""
        self._change(owner.container_id, owner.ifname, lambda names: [*names, name])

    def remove(self, lease: Lease) -> None:
        """Drop a file that was removed."""
        self._change(
            lease.container_id, lease.ifname, lambda names: [each for each in names if each != lease.name]
        )

    def make(self, leases: Iterable[Lease]) -> None:
        """Create the index of all leases, of a directory without subdirectories; have none if that fails."""
        held: dict[tuple[str, str], list[str]] = {}
        for lease in leases:
            held.setdefault((lease.container_id, lease.ifname), []).append(lease.name)
        try:
            # Seldom needed, and it takes 2 ms of a cold start.
            import shutil

            shutil.rmtree(self._links, ignore_errors=True)
            files.ensure_directory(FOLDER)
            boot.drop_earlier(FOLDER.parent)
            files.ensure_directory(Path(self._links))
            for (container_id, ifname), names in held.items():
                os.symlink("/".join(names), self._link(container_id, ifname))
            point("index.changed")
        except (OSError, CniError):
            return
        self.is_current = True

    def seal(self) -> None:
        """Record that the index matches the directory as it is now."""
        if not self.is_current or self.look():
            return
        past = time.time_ns() - _PAST_NS
        with suppress(OSError):
            _unlink(self._stamp)
            for folder in (self._leases, self._links):
                os.utime(folder, ns=(past, past))
            point("index.changed")
            identity, changed_ns = self._identity()
            # Another program may have changed a directory since.
            if changed_ns < past + _ROUNDED_NS:
                os.symlink(identity, self._stamp)

    def _read(self, container_id: str, ifname: str) -> list[str]:
        try:
            return os.readlink(self._link(container_id, ifname)).split("/")
        except FileNotFoundError:
            return []

    def _change(self, container_id: str, ifname: str, change: Callable[[list[str]], list[str]]) -> None:
        if not self.is_current:
            return
        link = self._link(container_id, ifname)
        try:
            names = change(self._read(container_id, ifname))
            _unlink(link)
            if names:
                os.symlink("/".join(names), link)
            point("index.changed")
        except OSError:
            self.is_current = False

    def _link(self, container_id: str, ifname: str) -> str:
        return f"{self._links}/{_hash_of(f'{container_id}/{ifname}')}"


@lru_cache(maxsize=64)
def _hash_of(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:32]


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
