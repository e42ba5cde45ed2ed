"""Which leases an attachment holds, without reading all of a large pool: a cache beside the folder.

One symbolic link for each attachment, named after a hash of it, whose target lists its lease files. A stamp
beside the links says for which state of the two folders they hold: of the leases and of the links. A pool of
less than `MANY` has no cache. Reading 10,000 leases takes 180 ms, asking here 0.1 ms.

Why what it says can be relied on:

- That a file is an attachment's is never believed: whoever asks here reads the file.
- That there are no others holds as long as nobody has changed either folder but we. Any file that appears
  or goes sets a folder's times of modification and of change to the present. We set the former to a
  moment that has passed, so that a change in the same tick of the clock shows, too; whoever sets it back,
  as a restored backup does, cannot set the latter. Links that were lost or forged show in the same way, as
  does another folder of the same name by its inode.
- A crash leaves no wrong stamp: it is removed before the folders get their times and written after
  that, and what changes before has changed the times. Links are changed before files appear and after
  they go, so that between the two the cache names a file too many, which is read.
- A lease that could not be read would be missing: a pool that has one gets no cache.
- What another boot has left is dropped (`cni.state.boot`).

Two things remain, both done by hand and without the lock: a file that appears or goes while one of our calls
has the lock, and one whose content is replaced in place. Until the next change by somebody else they are
unknown here. So DEL looks at the files of the addresses in its result, too, and CHECK does; an address
that has a file is never given to a second container, whatever is said here.
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
# How long ago the folders seem to have been changed, and by what a file system may round that.
_PAST_NS = 5_000_000_000
_ROUNDED_NS = 2_000_000_000


class LeaseIndex:
    """The cache of one folder of leases; what changes it is called with the folder's lock held.

    `is_current` is whether it is kept in step with the folder; changes are noted only then.
    """

    def __init__(self, folder: Path) -> None:
        self._leases = folder
        self._links = f"{FOLDER}/{_hash_of(str(folder))}"
        self._stamp = f"{self._links}.stamp"
        self.is_current = False

    def look(self) -> bool:
        """Tell whether the cache tells what is in the folder now."""
        try:
            told = os.readlink(self._stamp)
            boot.drop_earlier(FOLDER.parent)
            self.is_current = told == self._identity()[0]
        except (OSError, CniError):
            self.is_current = False
        return self.is_current

    def _identity(self) -> tuple[str, int]:
        """Tell in which state the two folders are, and when the last change of either seems to have been."""
        found = [os.stat(folder) for folder in (self._leases, self._links)]
        told = [f"{each.st_dev}:{each.st_ino}:{each.st_mtime_ns}:{each.st_ctime_ns}" for each in found]
        return " ".join(told), max(each.st_mtime_ns for each in found)

    def find(self, owner: Attachment) -> list[str]:
        """Give the names of the files of an attachment, and of those that name its container alone.

        Raises OSError for what is no link of ours.
        """
        names = [*self._read(owner.container_id, owner.ifname), *self._read(owner.container_id, "")]
        return list(dict.fromkeys(names))

    def add(self, owner: Attachment, name: str) -> None:
        """Note a file of an attachment that is about to be made."""
        self._change(owner.container_id, owner.ifname, lambda names: [*names, name])

    def remove(self, lease: Lease) -> None:
        """Forget a file that is gone."""
        self._change(
            lease.container_id, lease.ifname, lambda names: [each for each in names if each != lease.name]
        )

    def make(self, leases: Iterable[Lease]) -> None:
        """Make the cache of all that is in the folder, which has no subfolders; none where that fails."""
        held: dict[tuple[str, str], list[str]] = {}
        for lease in leases:
            held.setdefault((lease.container_id, lease.ifname), []).append(lease.name)
        try:
            # Seldom needed, and 2 ms of a start.
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
        """Let the cache be for the folder as it is now."""
        if not self.is_current or self.look():
            return
        past = time.time_ns() - _PAST_NS
        with suppress(OSError):
            _unlink(self._stamp)
            for folder in (self._leases, self._links):
                os.utime(folder, ns=(past, past))
            point("index.changed")
            identity, changed_ns = self._identity()
            # Somebody may have changed something since.
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
