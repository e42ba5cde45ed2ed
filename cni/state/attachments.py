"""Records for DEL: one small record of the ADD for each attachment of a plugin on a network.

A DEL may come without a result, after other calls, and in another process. A plugin that changes something
which a DEL cannot derive from names keeps here what it needs: the values before its change, a backup, a
lease's identity.

    key = attachments.Key("tuning", conf.name, request.container_id, request.ifname)

    # ADD: save before the change. A retried ADD finds the record of the one that was killed.
    saved = attachments.load(key)
    before = saved.values if saved and saved.is_of(ns) else {"mtu": link.get(nl, request.ifname).mtu}
    undo.add("remove the record", attachments.drop, key)
    attachments.save(key, before, ns)

    # DEL: restore in the same namespace only, then drop.
    saved = attachments.load(key)
    if saved and ns and saved.is_of(ns):
        ...
    attachments.drop(key)

    # GC: `cni.operations.garbage.find_records` removes records. A plugin that must do more, as to give a
    # lease back, takes them from `list_stale` in a finder of its own.

Records are in /run and end with the boot, also where /run does not (`cni.state.boot`). A record is bound to
the network namespace that its ADD was called for: `is_of` tells another namespace at the same path apart. A
record appears whole or not at all. `values` were valid when they were written. Treat them as input: a file
in /run may have been changed by root.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cni.errors import CniError, Code
from cni.log import note
from cni.state import boot, files
from cni.state.lock import locked

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cni.kernel.netns import Netns
    from cni.request import Attachment

FOLDER = Path("/run/pycni/attachments")
_LOCK = FOLDER.with_suffix(".lock")
# A record is written under this name first, with the lock held.
_UNFINISHED = f"{files.UNFINISHED_PREFIX}attachment"
_LARGEST_BYTES = 1 << 16


class Key(NamedTuple):
    """The owner of a record. `plugin` is the plugin's name, also if it is installed under another one."""

    plugin: str
    network: str
    container_id: str
    ifname: str


class Record(NamedTuple):
    """The data that an ADD has saved.

    `netns` is the path of the namespace, `identity` what the kernel identifies it by; both are "" for a
    record that was saved without one. In a damaged record all but `path` are empty.
    """

    path: str
    container_id: str = ""
    ifname: str = ""
    netns: str = ""
    identity: str = ""
    values: Mapping[str, Any] = {}

    def is_of(self, ns: Netns) -> bool:
        """Return whether the record was saved for this very namespace, not for another one at its path."""
        return bool(self.identity) and self.identity == ns.identity()


def save(key: Key, values: Mapping[str, Any], ns: Netns | None = None) -> None:
    """Save what DEL must know, in place of an earlier record; return when it is on the file system.

    `values` are what JSON can hold, at most 64 KiB. Raise CniError 11 or 106.
    """
    record = {**key._asdict(), "netns": ns.path if ns else "", "identity": ns.identity() if ns else ""}
    content = json.dumps({**record, "values": values}).encode()
    if len(content) > _LARGEST_BYTES:
        reason = f"it has {len(content)} bytes, at most {_LARGEST_BYTES} are allowed"
        raise CniError(
            Code.STORE,
            f"could not save a record of plugin {key.plugin}: {reason}",
            "The record names each change of ADD. Let the plugin change less.",
        )
    files.ensure_directory(FOLDER.parent)
    boot.drop_earlier(FOLDER.parent)
    files.ensure_directory(FOLDER)
    with locked(_LOCK):
        files.write_atomic(_path(key), content, beside=_UNFINISHED)


def load(key: Key) -> Record | None:
    """Return the record of an attachment; None if there is none, or if it is damaged, which is logged.

    Raise CniError 106 if it cannot be read.
    """
    path = _path(key)
    if not os.path.lexists(path):
        return None
    files.check_keepers(FOLDER)
    boot.drop_earlier(FOLDER.parent)
    record = _read(path, key.plugin, key.network)
    if record is None or record.container_id:
        return record
    note(f"{key.plugin}: ignoring {path}: it is damaged")
    return None


def drop(key: Key) -> bool:
    """Remove the record of an attachment and what a killed `save` left; return whether there was a record."""
    is_removed = files.remove(_path(key))
    _remove_unfinished()
    return is_removed


def list_stale(plugin: str, network: str, valid: Collection[Attachment]) -> list[Record]:
    """List the records of a plugin on a network whose attachments are not in `valid`, damaged ones too.

    The file that a killed `save` of any plugin has left is a damaged one.
    """
    if not os.path.lexists(FOLDER):
        return []
    files.check_keepers(FOLDER)
    boot.drop_earlier(FOLDER.parent)
    valid_paths = {_path(Key(plugin, network, *each)) for each in valid}
    found = []
    for path in sorted(set(_list_paths(_prefix(plugin, network))) - valid_paths):
        try:
            record = _read(path, plugin, network)
        except CniError:
            # Whatever it is, no valid attachment has it.
            record = Record(path)
        if record:
            found.append(record)
    return found + [Record(path) for path in [_unfinished()] if _is_left(path)]


def list_all(plugin: str) -> list[tuple[Key, Record]]:
    """List the records of a plugin on all networks without damaged ones; it reads those of all plugins."""
    files.check_keepers(FOLDER)
    if os.path.lexists(FOLDER):
        boot.drop_earlier(FOLDER.parent)
    found = []
    for path in sorted(_list_paths("")):
        try:
            content = files.read(path) or b""
            shown = json.loads(content) if len(content) <= _LARGEST_BYTES else {}
            key = Key(*(shown[name] for name in Key._fields))
            record = _read(path, plugin, key.network) if key.plugin == plugin else None
        except (CniError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue
        if record and record.container_id:
            found.append((key, record))
    return found


def remove(record: Record) -> bool:
    """Remove a record that `list_stale` returned; return whether it was there."""
    is_removed = record.path != _unfinished() and files.remove(record.path)
    return _remove_unfinished() or is_removed


def _prefix(plugin: str, network: str) -> str:
    return _digits(plugin, network)[:16] + "-"


def _path(key: Key) -> str:
    return f"{FOLDER}/{_prefix(key.plugin, key.network)}{_digits(key.container_id, key.ifname)[:32]}"


def _list_paths(prefix: str) -> list[str]:
    try:
        with os.scandir(FOLDER) as entries:
            return [each.path for each in entries if each.name.startswith(prefix)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CniError(Code.STORE, f"could not list {FOLDER}: {(error.strerror or '').lower()}") from error


def _digits(*parts: str) -> str:
    # No part can contain the separator: a name in the environment or of JSON that has a NUL is refused.
    return hashlib.sha256(os.fsencode("\0".join(parts))).hexdigest()


def _read(path: str, plugin: str, network: str) -> Record | None:
    """Read a record; None if it is not there, an empty one if it is damaged or is not that of its name."""
    content = files.read(path)
    if content is None:
        return None
    try:
        shown = json.loads(content) if len(content) <= _LARGEST_BYTES else {}
        key = Key(*(shown[name] for name in Key._fields))
        netns, identity, values = shown["netns"], shown["identity"], shown["values"]
        is_named_so = (key.plugin, key.network) == (plugin, network) and _path(key) == path
    except (ValueError, TypeError, KeyError, RecursionError):
        return Record(path)
    is_sound = all(isinstance(each, str) for each in (*key, netns, identity)) and isinstance(values, dict)
    if not is_sound or not is_named_so:
        return Record(path)
    return Record(path, key.container_id, key.ifname, netns, identity, values)


def _unfinished() -> str:
    return f"{FOLDER}/{_UNFINISHED}"


def _is_left(path: str) -> bool:
    """Return whether an unfinished record is there that no process is writing."""
    if not os.path.lexists(path):
        return False
    with locked(_LOCK):
        return os.path.lexists(path)


def _remove_unfinished() -> bool:
    if not os.path.lexists(_unfinished()):
        return False
    with locked(_LOCK):
        # With the lock held nobody is writing it: a killed process left it.
        return files.remove(_unfinished())
