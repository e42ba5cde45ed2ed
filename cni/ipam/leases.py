r"""The leases of one network: one file for each, as the Go plugin host-local writes them.

The folder `<dataDir>/<network>` is shared with the Go plugin, byte for byte and under the same lock:

    10.1.0.2              0600  "<container ID>\r\n<ifname>", or the ID alone before its v0.8.0
    last_reserved_ip.<N>  0600  the last address of range set N that was reserved
    lock                  0750  empty, held with flock(2)

A lease appears whole or not at all. A crash of the Go plugin leaves an empty lease, which has no holder. A
lease that was written before this boot is stale, because no network namespace outlives a boot. A lease that
names a container only may have been written by hand, and stays.
"""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from cni.addresses import parse_ip
from cni.errors import CniError, Code
from cni.ipam.lease_index import MANY, LeaseIndex
from cni.log import note
from cni.request import Attachment
from cni.state import files
from cni.state.lock import locked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from cni.result import IpAddress

# More than any container ID and ifname; a longer file is no lease.
_LARGEST_LEASE_BYTES = 4096

# Attempts to create and lock the folder, which failing ADDs remove again.
_MOST_TRIES = 100

# A file is written under this name first, with the lock held.
_UNFINISHED = f"{files.UNFINISHED_PREFIX}lease"


class Lease(NamedTuple):
    """A file of the folder; `container_id` is "" in an empty one, `ifname` "" in one of the old format."""

    path: str
    container_id: str
    ifname: str

    @property
    def name(self) -> str:
        """The file's name: the address, unless another program wrote the file."""
        return os.path.basename(self.path)

    @property
    def folder(self) -> str:
        """The folder that the file is in."""
        return os.path.dirname(self.path)

    @property
    def address(self) -> IpAddress | None:
        """The leased address; None if the file's name is no address."""
        try:
            return parse_ip(self.name)
        except ValueError:
            return None

    @property
    def attachment(self) -> Attachment:
        """The holder."""
        return Attachment(self.container_id, self.ifname)

    def is_held_by(self, owner: Attachment) -> bool:
        """Return whether an attachment holds it; the whole container holds one of the old format."""
        return self.container_id == owner.container_id and self.ifname in {owner.ifname, ""}

    def is_empty(self) -> bool:
        """Return whether it has no holder."""
        return not self.container_id

    def holder(self) -> str:
        """Return its holder in words."""
        if self.is_empty():
            return "nobody"
        return f"container {self.container_id}" + (f", interface {self.ifname}" if self.ifname else "")


class Leases:
    """The folder of one network. Call methods that change it inside `locked()`, unless they say otherwise.

    With `keeps_over_boot` leases that were written before this boot are valid.
    """

    def __init__(self, folder: Path, *, keeps_over_boot: bool = False) -> None:
        self.folder = folder
        self._began_s = 0.0 if keeps_over_boot else None
        self._marked: frozenset[str] | None = None
        self._created: list[Path] = []
        self._index = LeaseIndex(folder)
        self._is_locked = False

    @contextmanager
    def locked(self, timeout_s: float = 30) -> Iterator[None]:
        """Hold the lock, as the Go plugin does; create a missing folder. Raise CniError 11 or 106."""
        with ExitStack() as stack:
            self._enter_lock(stack, timeout_s)
            self._is_locked = True
            self._index.look()
            try:
                yield
                self._index.seal()
            finally:
                self._is_locked = self._index.is_current = False

    def _enter_lock(self, stack: ExitStack, timeout_s: float) -> None:
        # A failing ADD removes the folder that it created, and with it a lock for which we may be waiting.
        for left in reversed(range(_MOST_TRIES)):
            created = files.ensure_directory(self.folder, 0o755)
            # From here on `remove_unused` removes it.
            self._created = list(dict.fromkeys([*self._created, *created]))
            try:
                stack.enter_context(locked(f"{self.folder}/lock", timeout_s, 0o750))
            except CniError as error:
                if not left or not isinstance(error.__cause__, FileNotFoundError):
                    files.remove_directories(created)
                    raise
            else:
                return

    def exists(self) -> bool:
        """Return whether the folder exists; without it there are no leases. It needs no lock."""
        try:
            return stat.S_ISDIR(self.folder.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise CniError(Code.STORE, f"could not look for {self.folder}: {reason}") from error

    def remove_unused(self) -> None:
        """Remove the folders that this object created, if only the lock is inside. Call it unlocked."""
        if not self._created:
            return
        with suppress(OSError, CniError), locked(self.folder / "lock", 0, 0o750):
            if os.listdir(self.folder) == ["lock"]:
                (self.folder / "lock").unlink()
                files.remove_directories(self._created)

    def list_all(self) -> list[Lease]:
        """Return all leases, in subfolders too, as the Go plugin does. It needs no lock.

        Unreadable files are left out, as there, and files with other purposes.
        """
        return self._list()[0]

    def _list(self) -> tuple[list[Lease], bool]:
        """Return all leases, and whether an index can cover them: no subfolders, no unreadable files."""
        found = []
        folders = [str(self.folder)]
        is_whole = True
        while folders:
            for entry in _scan(folders.pop()):
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                    is_whole = False
                elif entry.is_file(follow_symlinks=False) and not _has_other_purpose(entry.name):
                    try:
                        found += _read_lease(entry.path)
                    except OSError:
                        is_whole = False
        return found, is_whole

    def list_top(self) -> list[Lease]:
        """Return the leases in the folder itself: neither suite writes to subfolders."""
        top = str(self.folder)
        return [lease for lease in self.list_all() if lease.folder == top]

    def list_held_by(self, owner: Attachment, likely: Iterable[IpAddress] = ()) -> list[Lease]:
        """Return the attachment's leases, or else those of the old format of its container.

        `likely` is as in `list_of`.
        """
        held = self.list_of(owner, likely)
        return [lease for lease in held if lease.ifname] or held

    def list_of(self, owner: Attachment, likely: Iterable[IpAddress] = ()) -> list[Lease]:
        """Return the attachment's leases and those of the old format of its container.

        Leases of `likely` addresses are read even if the index lacks them. It needs no lock.
        """
        found = self._find_indexed(owner, likely)
        if found is None:
            found, is_whole = self._list()
            if self._is_locked and is_whole and len(found) >= MANY:
                self._index.make(found)
        return [lease for lease in found if lease.is_held_by(owner)]

    def _find_indexed(self, owner: Attachment, likely: Iterable[IpAddress]) -> list[Lease] | None:
        """Return the leases that may be an attachment's; None if all leases must be read."""
        if not (self._index.is_current if self._is_locked else self._index.look()):
            return None
        try:
            names = dict.fromkeys([*self._index.find(owner), *map(str, likely)])
            return [lease for name in names for lease in _read_lease(f"{self.folder}/{name}")]
        except OSError:
            self._index.is_current = False
            return None

    def find(self, address: IpAddress) -> Lease | None:
        """Return the lease of an address; None if it is free. It needs no lock.

        Any file of that name takes the address. Raise CniError 106 if its holder cannot be read.
        """
        path = self._path(address)
        content = files.read(path)
        return None if content is None else _parse(path, content)

    def is_free(self, address: IpAddress) -> bool:
        """Return whether no file has the address's name. It needs no lock."""
        return not os.path.lexists(self._path(address))

    def is_reclaimable(self, address: IpAddress) -> bool:
        """Return whether the address has a lease without a living holder. It needs no lock."""
        try:
            lease = self.find(address)
        except CniError:
            return False
        return lease is not None and not self.is_alive(lease)

    def is_alive(self, lease: Lease) -> bool:
        """Return whether a lease has a holder and was written in this boot. It needs no lock."""
        if lease.is_empty():
            return False
        if not lease.ifname:
            return True
        if self._began_s is None:
            # Only DEL, GC and a full pool look at old leases.
            from cni.state import boot

            self._began_s = boot.began_s()
        try:
            # Not the mtime: a program that restores or copies files may set it.
            if os.lstat(lease.path).st_ctime >= self._began_s:
                return True
        except OSError:
            return True
        # The clock may have been stepped, and this may not be the machine's /run. A link is proof.
        return self._has_host_end(lease)

    def _has_host_end(self, lease: Lease) -> bool:
        """Return whether a link proves that the holder lives; list links once, as many leases may be old."""
        # Only a lease from before the boot needs it.
        from cni import marks
        from cni.operations import holders

        network = self.folder.name
        if self._marked is None:
            self._marked = holders.list_marked(network)
        return marks.alias(network, lease.attachment) in self._marked

    def reserve(self, address: IpAddress, owner: Attachment) -> None:
        """Reserve an address that is free or reclaimable. Raise CniError 11 or 106."""
        path = self._path(address)
        content = f"{owner.container_id}\r\n{owner.ifname}".encode()
        self._index.add(owner, str(address))
        if files.create_exclusive(path, content, beside=_UNFINISHED):
            return
        if not self.is_reclaimable(address):
            raise CniError(
                Code.TRY_AGAIN, f"could not reserve {address}: {path} appeared in spite of the lock"
            )
        files.write_atomic(path, content, beside=_UNFINISHED)

    def release(self, address: IpAddress, owner: Attachment) -> None:
        """Release an address that this very attachment holds. It needs no lock: no other call changes it."""
        lease = self.find(address)
        if lease and lease.ifname and lease.is_held_by(owner):
            self.remove(lease)

    def remove(self, lease: Lease) -> None:
        """Remove one file; absent is fine."""
        files.remove(lease.path)
        self._index.remove(lease)

    def read_last(self, number: int) -> bytes | None:
        """Return the content of last_reserved_ip of a range set; None if it is absent or unreadable."""
        try:
            return files.read(self._last(number))
        except CniError as error:
            note(f"host-local: starting over at the range's start: {error}")
            return None

    def write_last(self, number: int, address: IpAddress) -> None:
        """Write last_reserved_ip of a range set."""
        files.write_atomic(self._last(number), str(address).encode(), beside=_UNFINISHED)

    def remove_unfinished(self) -> None:
        """Remove an unfinished file that a killed ADD left; with the lock held no process is writing it."""
        path = f"{self.folder}/{_UNFINISHED}"
        # Look first: a read-only file system refuses to remove even an absent file.
        if os.path.lexists(path):
            files.remove(path)

    def restore_last(self, number: int, before: bytes | None, written: IpAddress) -> None:
        """Restore the content from before `written`, unless another address has been written since."""
        if self.read_last(number) != str(written).encode():
            return
        if before is None:
            files.remove(self._last(number))
        else:
            files.write_atomic(self._last(number), before)

    def _last(self, number: int) -> str:
        return f"{self.folder}/last_reserved_ip.{number}"

    def _path(self, address: IpAddress) -> str:
        return f"{self.folder}/{address}"


def parse_last(content: bytes | None) -> IpAddress | None:
    """Return the address in last_reserved_ip; None for garbage, which starts at the range's beginning."""
    try:
        return parse_ip((content or b"").decode().strip())
    except ValueError:
        return None


def is_unfinished(lease: Lease) -> bool:
    """Return whether a crash left the file unfinished: with the lock held no process is writing it."""
    return lease.name.startswith(files.UNFINISHED_PREFIX)


def _has_other_purpose(name: str) -> bool:
    return name == "lock" or name.startswith("last_reserved_ip.")


def _scan(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CniError(Code.STORE, f"could not list {folder}: {reason}") from error


def _read_lease(path: str) -> list[Lease]:
    """Return the lease in a file, [] if the file has disappeared. Raise OSError if it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return []
    try:
        return [_parse(path, os.read(fd, _LARGEST_LEASE_BYTES))]
    finally:
        os.close(fd)


def _parse(path: str, content: bytes) -> Lease:
    container_id, _, ifname = content.decode(errors="replace").strip().partition("\r\n")
    return Lease(path, container_id, ifname)
