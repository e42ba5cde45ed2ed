"""The records of published names: one file for each attachment, which the server reads.

    publish(record)               # ADD: the server reads it when it is asked to look
    withdraw(record.key)          # DEL: without a result, without a namespace
    list_all()                    # `pycni show` and `pycni dns`

A file's name has a digest of its content, so that a listing of its folder shows each change. The files are
spread over 16 folders, and the server lists only those that have changed (`stamp`): an ADD beside thousands
of names takes little longer than one beside none. Files are in /run and end with the boot
(`cni.state.boot`). A record appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cni.dns.names import Key, Record, Settings
from cni.errors import CniError, Code
from cni.state import boot, files
from cni.state.lock import locked

if TYPE_CHECKING:
    from collections.abc import Collection

    from cni.request import Attachment

FOLDER = Path("/run/pycni/dns")
_LOCK = FOLDER.with_suffix(".lock")
_UNFINISHED = f"{files.UNFINISHED_PREFIX}names"
_LARGEST_BYTES = 1 << 16
_DIGITS = "0123456789abcdef"
# The kernel's time of a change goes on in steps of at most 10 ms.
_SAME_TIME_NS = 50_000_000


class Listed(NamedTuple):
    """A file of a record, and its record; None if it is damaged."""

    path: str
    record: Record | None


class Stamp(NamedTuple):
    """A folder, and when a name in it has changed."""

    inode: int
    changed_ns: int


def publish(record: Record) -> None:
    """Save a record in place of an earlier one of its attachment. Raise CniError 11 or 106."""
    content = json.dumps(_to_json(record)).encode()
    if len(content) > _LARGEST_BYTES:
        reason = f"it has {len(content)} bytes, at most {_LARGEST_BYTES} are allowed"
        raise CniError(Code.STORE, f"could not save the names of {record.key.container_id}: {reason}")
    files.ensure_directory(FOLDER.parent)
    boot.drop_earlier(FOLDER.parent)
    files.ensure_directory(FOLDER)
    folder = _folder_of(record.key)
    if not os.path.isdir(folder):  # noqa: PTH112 - pathlib takes longer: this is on the way of each ADD
        # All at once: otherwise most of the first ADDs would make one.
        for digit in _DIGITS:
            files.ensure_directory(FOLDER / digit)
    path = f"{folder}/{_stem(record.key)}.{hashlib.sha256(content).hexdigest()[:16]}"
    with locked(_LOCK):
        earlier = _paths_of(record.key)
        files.write_atomic(path, content, beside=_UNFINISHED)
        for each in earlier:
            if each != path:
                files.remove(each)


def withdraw(key: Key) -> bool:
    """Remove the record of an attachment, and what a killed `publish` left; return whether there was one."""
    if not os.path.lexists(FOLDER):
        return False
    files.check_keepers(FOLDER)
    unfinished = f"{_folder_of(key)}/{_UNFINISHED}"
    if not (paths := _paths_of(key)) and not os.path.lexists(unfinished):
        return False
    with locked(_LOCK):
        removed = [files.remove(each) for each in paths]
        files.remove(unfinished)
    return any(removed)


def remove(path: str) -> None:
    """Remove a file that `list_stale` has returned."""
    with locked(_LOCK):
        files.remove(path)


def load(key: Key) -> Record | None:
    """Return the record of an attachment; None if there is none, or if it is damaged."""
    if not os.path.lexists(FOLDER):
        return None
    files.check_keepers(FOLDER)
    boot.drop_earlier(FOLDER.parent)
    found = [record for each in _paths_of(key) if (record := read(each))]
    return found[-1] if found else None


def list_stale(network: str, valid: Collection[Attachment]) -> list[Listed]:
    """List the files of a network whose attachments are not in `valid`, damaged ones too."""
    if not os.path.lexists(FOLDER):
        return []
    files.check_keepers(FOLDER)
    boot.drop_earlier(FOLDER.parent)
    kept = {_stem(Key(network, *each)) for each in valid}
    prefix = _network_prefix(network)
    stale = [
        f"{folder}/{name}"
        for folder in list_folders()
        for name in sorted(list_names(folder))
        if name.startswith(prefix) and name.partition(".")[0] not in kept
    ]
    return [Listed(path, read(path)) for path in [*stale, *_list_left()]]


def has_network(network: str) -> bool:
    """Return whether a network has any record."""
    prefix = _network_prefix(network)
    return any(name.startswith(prefix) for folder in list_folders() for name in list_names(folder))


def list_all() -> list[Record]:
    """List all records without damaged ones, the oldest attachment first."""
    if not os.path.lexists(FOLDER):
        return []
    files.check_keepers(FOLDER)
    boot.drop_earlier(FOLDER.parent)
    paths = (f"{folder}/{name}" for folder in list_folders() for name in list_names(folder))
    found = [record for each in paths if (record := read(each))]
    return sorted(found, key=lambda each: each.since_ns)


def list_folders() -> list[str]:
    """List the folders that there are for files of records."""
    return [f"{FOLDER}/{each}" for each in _list_entries(FOLDER) if len(each) == 1]


def list_names(folder: str) -> list[str]:
    """List the names of a folder's files. They say which records there are, and which have changed."""
    return [each for each in _list_entries(folder) if not each.startswith(".")]


def _list_entries(folder: Path | str) -> list[str]:
    try:
        # pathlib takes longer: this is on the way of each ADD.
        return os.listdir(folder)  # noqa: PTH208
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CniError(Code.STORE, f"could not list {folder}: {(error.strerror or '').lower()}") from error


def stamp(folder: str) -> Stamp | None:
    """Return what changes with the names in a folder; None if the folder is gone."""
    try:
        status = os.stat(folder)  # noqa: PTH116
    except OSError:
        return None
    return Stamp(status.st_ino, status.st_mtime_ns)


def is_settled(seen: Stamp) -> bool:
    """Return whether each change from now on gives another stamp."""
    return time.time_ns() - seen.changed_ns > _SAME_TIME_NS


def read(path: str) -> Record | None:
    """Return the record in a file; None if it is gone or damaged."""
    try:
        content = files.read(path)
        record = _from_json(json.loads(content)) if content and len(content) <= _LARGEST_BYTES else None
    except (CniError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    is_named_so = record is not None and path.rpartition("/")[2].startswith(_stem(record.key))
    return record if is_named_so else None


def _to_json(record: Record) -> dict[str, Any]:
    return {
        **record._asdict(),
        "key": record.key._asdict(),
        "settings": record.settings._asdict(),
    }


def _from_json(shown: dict[str, Any]) -> Record:
    settings, key = shown["settings"], shown["key"]
    upstreams = settings["upstreams"]
    # An earlier release has not written them.
    own = shown.get("upstreams", [])
    texts = [
        *key.values(),
        shown["netns"],
        shown["owner"],
        *(settings[name] for name in ("domain", "hosts", "pid_file")),
    ]
    lists = [
        shown["names"],
        shown["addresses"],
        settings["gateways"],
        settings["subnets"],
        upstreams or [],
        own,
    ]
    if not all(isinstance(each, str) for each in [*texts, *(text for each in lists for text in each)]):
        raise TypeError("a text is expected")
    # Thousands of records have these in common.
    common = Key(sys.intern(key["network"]), key["container_id"], sys.intern(key["ifname"]))
    return Record(
        common,
        tuple(shown["names"]),
        tuple(shown["addresses"]),
        Settings(
            settings["domain"],
            tuple(settings["gateways"]),
            tuple(settings["subnets"]),
            bool(settings["is_internal"]),
            None if upstreams is None else tuple(upstreams),
            settings["hosts"],
            settings["pid_file"],
        ),
        int(shown["since_ns"]),
        shown["netns"],
        sys.intern(shown["owner"]),
        tuple(own),
    )


def _paths_of(key: Key) -> list[str]:
    stem, folder = f"{_stem(key)}.", _folder_of(key)
    return [f"{folder}/{each}" for each in list_names(folder) if each.startswith(stem)]


def _folder_of(key: Key) -> str:
    return f"{FOLDER}/{_container_digits(key)[0]}"


def _network_prefix(network: str) -> str:
    return f"{_digits(network)[:16]}-"


def _stem(key: Key) -> str:
    return f"{_network_prefix(key.network)}{_container_digits(key)}"


def _container_digits(key: Key) -> str:
    return _digits(key.container_id, key.ifname)[:32]


def _digits(*parts: str) -> str:
    return hashlib.sha256(os.fsencode("\0".join(parts))).hexdigest()


def _list_left() -> list[str]:
    """List unfinished records that no process is writing."""
    paths = [f"{folder}/{_UNFINISHED}" for folder in list_folders()]
    if not any(map(os.path.lexists, paths)):
        return []
    with locked(_LOCK):
        return [each for each in paths if os.path.lexists(each)]
