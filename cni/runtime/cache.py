"""The result cache: what each attachment was added with, one file per attachment, in libcni's format.

`<folder>/results/<network>-<container ID>-<ifname>` lets a DEL in another process, by another runtime or
after a reboot of one, give the plugins what the ADD had. Only runtimes read and write it.
"""

from __future__ import annotations

import base64
import binascii
import json
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

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """One attachment as it was added. `config` is the list as JSON, `result` what its chain gave.

    An entry of the older format is the result alone: its `config` is empty, `netns` "".
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
        """The netns path, from the result where libcni before 1.2 did not write it; "" when unknown."""
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
        """Give the file of an attachment. Raises CniError 4 when its name is too long for a file."""
        name = f"{network}-{attachment.container_id}-{attachment.ifname}"
        if len(name.encode(errors="surrogateescape")) > _NAME_BYTES:
            raise CniError(
                Code.INVALID_ENVIRONMENT,
                f"no cache file can be called {name}",
                f"network name, container ID and ifname may have {_NAME_BYTES - 2} bytes together",
            )
        return self.folder / name

    def read(self, network: str, attachment: Attachment) -> Entry | None:
        """Give the entry, None when there is none. Raises CniError 6 or 106 naming what is wrong."""
        path = self.path(network, attachment)
        # What it says is run by root.
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
        files.write_atomic(path, show_entry(entry), _FILE_MODE)

    def remove(self, network: str, attachment: Attachment) -> None:
        """Remove the entry; none there is fine."""
        files.remove(self.path(network, attachment))

    def list_entries(self) -> list[Entry]:
        """Give all entries by file name, without those in the older format and without broken paths.

        Raises CniError 106 when the folder is there but cannot be read, or is in others' hands.
        """
        files.check_keepers(self.folder)
        try:
            paths = sorted(self.folder.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CniError(Code.STORE, f"could not list {self.folder}: {error.strerror}") from error
        return [entry for file in paths if (entry := self._readable(file))]

    @staticmethod
    def _readable(path: Path) -> Entry | None:
        try:
            document = _decode(files.read(path) or b"", path)
            return parse_entry(document, path) if document.get("kind") == KIND else None
        except CniError:
            return None


def show_entry(entry: Entry) -> bytes:
    """Give the text of a file: the members and their order as libcni has them."""
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
    # Go's encoder writes these so; they can stand only inside texts, where both spellings mean the same.
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text.encode(errors="replace")


def parse_entry(document: Json, path: Path) -> Entry:
    """Read a decoded file of the newer format. Raises CniError 6 that names file and member."""
    args = document.get("cniArgs") or []
    if not isinstance(args, list) or not all(_is_pair(each) for each in args):
        raise _broken(path, '"cniArgs" is no list of pairs')
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
        raise _broken(path, f'"config" is not in base64: {error}') from error


def _decode(text: bytes, path: Path) -> Json:
    return decode_object(text, f"cache file {path}")


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(each, str) for each in value)


def _sorted(value: Any) -> Any:
    """Give JSON with the keys of all its objects in order, as Go writes maps."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(each) for each in value] if isinstance(value, list) else value


def _broken(path: Path, what: str) -> CniError:
    return CniError(Code.DECODING_FAILURE, f"could not read cache file {path}: {what}", "remove the file")
