"""The result cache: the arguments and the result of each ADD, one file per attachment, in libcni's format.

From `<folder>/results/<network>-<container ID>-<ifname>` a later DEL, also of another process or another
runtime, passes the plugins the arguments of the ADD. Only runtimes read and write the cache.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cni.conf import decode_object
from cni.errors import CniError, Code
from cni.request import Attachment
from cni.state import files

DEFAULT_FOLDER = Path("/var/lib/cni")
KIND = "cniCacheV1"
_FILE_MODE = 0o600
_FOLDER_MODE = 0o700
_NAME_BYTES = 255
# A write takes milliseconds. An unfinished file of this age is of a process that was killed.
_UNFINISHED_S = 600

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """One attachment as it was added. `config` is the network as JSON, `result` the result of its plugins.

    An entry of the older format has only the result: `config` is empty and `netns` is "". One without a
    result is of an ADD that runs, or was killed.
    """

    network: str
    container_id: str
    ifname: str
    config: bytes = b""
    netns: str = ""
    args: tuple[tuple[str, str], ...] = ()
    capability_args: Json = field(default_factory=dict)
    result: Json = field(default_factory=dict)

    @property
    def attachment(self) -> Attachment:
        """The (container ID, ifname) pair."""
        return Attachment(self.container_id, self.ifname)

    @property
    def sandbox(self) -> str:
        """The netns path, from the result if libcni before 1.2 did not write it; "" if unknown."""
        if self.netns:
            return self.netns
        interfaces = self.result.get("interfaces")
        for each in interfaces if isinstance(interfaces, list) else []:
            if isinstance(each, dict) and each.get("name") == self.ifname and each.get("sandbox"):
                return str(each["sandbox"])
        return ""


class Cache:
    """The cache in a folder; the default one is shared by containerd, nerdctl, CRI-O and cnitool."""

    def __init__(self, folder: Path = DEFAULT_FOLDER) -> None:
        self.folder = folder / "results"

    def path(self, network: str, attachment: Attachment) -> Path:
        """Return the file of an attachment. Raises CniError 4 if its name is too long for a file."""
        name = f"{network}-{attachment.container_id}-{attachment.ifname}"
        if len(name.encode(errors="surrogateescape")) > _NAME_BYTES:
            raise CniError(
                Code.INVALID_ENVIRONMENT,
                f"no cache file can be called {name}: the name is too long",
                f"Use a network name, container ID and ifname with at most {_NAME_BYTES - 2} bytes together.",
            )
        return self.folder / name

    def read(self, network: str, attachment: Attachment) -> Entry | None:
        """Return the entry, None if there is none. Raises CniError 6 or 106 if it cannot be read."""
        path = self.path(network, attachment)
        # Root runs the plugins that an entry names, so only root may write here.
        files.check_keepers(self.folder)
        text = files.read(path)
        if text is None:
            return None
        document = _decode(text, path)
        if document.get("kind") != KIND:
            return Entry(network, attachment.container_id, attachment.ifname, result=document)
        entry = parse_entry(document, path)
        # "a-b" with "c" and "a" with "b-c" share a file name.
        return entry if (entry.network, entry.attachment) == (network, attachment) else None

    def write(self, entry: Entry) -> None:
        """Write an entry whole or not at all. Raises CniError 106."""
        path = self.path(entry.network, entry.attachment)
        files.ensure_directory(self.folder, _FOLDER_MODE)
        unfinished = f"{_unfinished_prefix()}{os.getpid()}-{os.urandom(4).hex()}"
        files.write_atomic(path, show_entry(entry), _FILE_MODE, beside=unfinished)

    def remove(self, network: str, attachment: Attachment) -> None:
        """Remove the entry, if there is one, and what processes that were killed have left."""
        files.remove(self.path(network, attachment))
        self.remove_unfinished()

    def list_entries(self) -> list[Entry]:
        """Return all entries by file name, without entries of the older format and unreadable files.

        Raises CniError 106 if the folder exists but cannot be read, or if another user can write to it.
        """
        return [entry for name in sorted(self.stamps()) if (entry := self.read_file(name))]

    def stamps(self) -> dict[str, tuple[int, int]]:
        """Return the names of all files, with numbers that differ when a file is another one or was changed.

        Raise CniError 106 as `list_entries` does.
        """
        files.check_keepers(self.folder)
        try:
            with os.scandir(self.folder) as listed:
                finished = [each for each in listed if not each.name.startswith(files.UNFINISHED_PREFIX)]
                return {each.name: _stamp(each) for each in finished}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise CniError(Code.STORE, f"cannot list {self.folder}: {error.strerror}") from error

    def remove_unfinished(self) -> None:
        """Remove the files of processes that were killed while they wrote. Raises CniError 106."""
        latest = time.time() - _UNFINISHED_S
        for path in self.folder.glob(f"{files.UNFINISHED_PREFIX}*"):
            with suppress(FileNotFoundError):
                if path.lstat().st_mtime < latest or _has_dead_writer(path.name):
                    files.remove(path)

    def read_file(self, name: str) -> Entry | None:
        """Return the entry in a file of the folder; None if it has the older format or cannot be read."""
        path = self.folder / name
        try:
            document = _decode(files.read(path) or b"", path)
            return parse_entry(document, path) if document.get("kind") == KIND else None
        except CniError:
            return None


def _unfinished_prefix() -> str:
    """Return how names of unfinished files of our PID namespace begin; the writer's process ID follows."""
    return f"{files.UNFINISHED_PREFIX}{Path('/proc/self/ns/pid').stat().st_ino}-"


def _has_dead_writer(name: str) -> bool:
    """Return whether an unfinished file is of a process that has ended; False if that cannot be known."""
    pid = name.removeprefix(_unfinished_prefix()).partition("-")[0]
    return name.startswith(_unfinished_prefix()) and pid.isdecimal() and not Path(f"/proc/{pid}").exists()


def _stamp(file: os.DirEntry[str]) -> tuple[int, int]:
    try:
        status = file.stat(follow_symlinks=False)
    except FileNotFoundError:
        # Removed since it was listed.
        return 0, 0
    return status.st_ino, status.st_mtime_ns


def show_entry(entry: Entry) -> bytes:
    """Return the text of a cache file, with libcni's members in libcni's order."""
    document: Json = {
        "kind": KIND,
        "containerId": entry.container_id,
        "config": base64.b64encode(entry.config).decode(),
        "ifName": entry.ifname,
        "networkName": entry.network,
    }
    optional = {
        "netns": entry.netns,
        "cniArgs": [list(pair) for pair in entry.args],
        "capabilityArgs": _sorted(entry.capability_args),
        "result": _sorted(entry.result),
    }
    document |= {key: value for key, value in optional.items() if value}
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    # Go's encoder escapes these characters. They occur only inside strings, where both spellings are equal.
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text.encode(errors="replace")


def parse_entry(document: Json, path: Path) -> Entry:
    """Parse a decoded file of the newer format. Raises CniError 6 that names file and member."""
    args = document.get("cniArgs") or []
    if not isinstance(args, list) or not all(_is_pair(each) for each in args):
        raise _broken(path, '"cniArgs" must be an array of pairs of strings')
    for member in ("networkName", "containerId", "ifName"):
        if not document.get(member):
            raise _broken(path, f'"{member}" is missing')
    return Entry(
        _member(document, "networkName", str, path),
        _member(document, "containerId", str, path),
        _member(document, "ifName", str, path),
        _decode_config(document, path),
        _member(document, "netns", str, path),
        tuple((key, value) for key, value in args),
        _member(document, "capabilityArgs", dict, path),
        _member(document, "result", dict, path),
    )


def _member(document: Json, name: str, kind: type, path: Path) -> Any:
    value = document.get(name)
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise _broken(path, f'"{name}" is {json.dumps(value)}')
    return value


def _decode_config(document: Json, path: Path) -> bytes:
    try:
        return base64.b64decode(_member(document, "config", str, path), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _broken(path, f'"config" is not valid base64: {error}') from error


def _decode(text: bytes, path: Path) -> Json:
    return decode_object(text, f"cache file {path}")


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(each, str) for each in value)


def _sorted(value: Any) -> Any:
    """Return JSON with the keys of all its objects sorted, as Go writes maps."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(each) for each in value] if isinstance(value, list) else value


def _broken(path: Path, reason: str) -> CniError:
    return CniError(Code.DECODING_FAILURE, f"cannot read cache file {path}: {reason}", "Remove the file.")
