"""The names of containers that `pycni run` has made, and what remains of a run that was killed.

A run holds the lock on its file for as long as it lives. Its network namespace is mounted in the folder of
`ip netns`, so that it outlives the run if that is killed: then the lock is free. A record beside the lock
identifies the namespace, so that one that a person has made later under the same name is never removed.
"""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.kernel import mounts, netns
from cni.log import note
from cni.state import files
from cni.state.lock import locked

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path("/run/pycni/runs")
NETNS_FOLDER = "/run/netns"
RESOLV_CONF, HOSTS = "resolv.conf", "hosts"
_LOCK, _RECORD = ".lock", "netns"
_FILE_MODE = 0o644
# Longer than a look at the lock of another run takes.
_LOOK_S = 0.5


def netns_path(name: str) -> str:
    """Return the path of a container's network namespace."""
    return f"{NETNS_FOLDER}/{name}"


def file_of(name: str, kind: str) -> Path:
    """Return the path of a file of a container: RESOLV_CONF or HOSTS."""
    return FOLDER / f"{name}.{kind}"


def write_file(name: str, kind: str, text: str) -> Path:
    """Write a file of a container that the caller has claimed. Return its path. Raise CniError 106."""
    path = file_of(name, kind)
    files.write_atomic(path, text.encode(errors="replace"), _FILE_MODE, beside=_unfinished(name))
    return path


def _unfinished(name: str) -> str:
    return f"{files.UNFINISHED_PREFIX}{name}"


@contextmanager
def claimed(name: str) -> Iterator[bool]:
    """Hold a name for the block; remove its namespace and files then. Raise CniError 105 if it is taken.

    Yield whether there were remains of a run that was killed.
    """
    files.ensure_directory(FOLDER)
    path = FOLDER / f"{name}{_LOCK}"
    has_remains = path.exists()
    with _locked(path, name):
        try:
            _remove(name)
            if os.path.lexists(netns_path(name)):
                raise CniError(
                    Code.ALREADY_EXISTS,
                    f'the name "{name}" is taken: there is a network namespace {netns_path(name)}',
                    f"Choose another name, or remove the namespace with ip netns delete {name}.",
                )
            yield has_remains
        finally:
            _remove(name)
            files.remove(path)


@contextmanager
def _locked(path: Path, name: str) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(path, _LOOK_S))
        except CniError as error:
            if error.code != Code.TRY_AGAIN:
                raise
            raise CniError(
                Code.ALREADY_EXISTS,
                f'the name "{name}" is taken by a container of another pycni run: {error.details}',
                "Choose another name, or end that process.",
            ) from error
        yield


def mount_netns(name: str, pid: int) -> None:
    """Mount the network namespace of a process at the path of a container. Raise CniError."""
    with netns.open_netns(f"/proc/{pid}/ns/net") as ns:
        record = FOLDER / f"{name}.{_RECORD}"
        files.write_atomic(record, ns.identity().encode(), beside=_unfinished(name))
        path = netns_path(name)
        Path(NETNS_FOLDER).mkdir(mode=0o755, exist_ok=True)
        mounts.share(NETNS_FOLDER)
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
        mounts.bind(f"/proc/self/fd/{ns.fd}", path)


def is_stale(path: str) -> bool:
    """Return whether the network namespace at a path is of a run that was killed."""
    name = path.removeprefix(f"{NETNS_FOLDER}/")
    if name == path or "/" in name or not _is_unlocked(FOLDER / f"{name}{_LOCK}"):
        return False
    try:
        return _is_recorded(name)
    except CniError:
        return False


def remove_stale() -> list[str]:
    """Remove the namespaces and files of runs that were killed. Return the paths of the namespaces.

    Their attachments are gone then, though the kernel removes links later. An error is logged: the caller has
    other work.
    """
    removed = []
    with suppress(OSError):
        for path in sorted(FOLDER.glob(f"*{_LOCK}")):
            try:
                with locked(path, 0):
                    name = path.name.removesuffix(_LOCK)
                    _remove(name)
                    files.remove(path)
                    removed.append(netns_path(name))
            except CniError as error:
                if error.code != Code.TRY_AGAIN:
                    note(f"pycni: {error}")
    return removed


def _is_unlocked(path: Path) -> bool:
    """Return whether there is a file that no process has locked."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError):
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _is_recorded(name: str) -> bool:
    """Return whether a container's path leads to the namespace of its record. Raise CniError."""
    recorded = files.read(FOLDER / f"{name}.{_RECORD}")
    found = netns.find(netns_path(name)) if recorded else None
    if found is None:
        return False
    with found:
        return found.identity().encode() == recorded


def remove_netns(name: str) -> None:
    """Remove a container's network namespace, if it has one. The caller has claimed it. Raise CniError."""
    path = netns_path(name)
    if _is_recorded(name):
        mounts.unmount(path)
        files.remove(path)
    elif files.read(FOLDER / f"{name}.{_RECORD}") is not None and _is_bare_file(path):
        # The run was killed before it could mount the namespace.
        files.remove(path)
    files.remove(FOLDER / f"{name}.{_RECORD}")


def _remove(name: str) -> None:
    remove_netns(name)
    for path in (file_of(name, RESOLV_CONF), file_of(name, HOSTS), FOLDER / _unfinished(name)):
        files.remove(path)


def _is_bare_file(path: str) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and not status.st_size and netns.is_gone(path)
