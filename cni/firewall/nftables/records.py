"""Records of an owner's elements in nftables: a small file for each kind, so that DEL need not read all maps.

A record is written before the elements, which therefore may not exist. Records are in /run, because a boot
deletes rules as well, and records of another boot are dropped. If the folder is lost, DEL falls back to
searching; if one record is lost, its elements stay until GC.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cni.errors import CniError
from cni.firewall import owners
from cni.firewall.nftables.elements import Element
from cni.firewall.nftables.layout import FAMILIES
from cni.state import boot, files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.firewall.intents import Owner

FOLDER = Path("/run/pycni/nftables")
_TRIES = 5
# Of a key and a value: more than an address, a protocol and a port have.
_MOST_DIGITS = 256


def _path(kind: str, owner: Owner) -> str:
    return f"{FOLDER}/{owners.tag(owner)}.{kind}"


def _unfinished(kind: str, owner: Owner) -> str:
    # It begins like the record, so that GC finds it.
    return f"{owners.tag(owner)}.{kind}.unfinished"


def write(kind: str, owner: Owner, elements: Sequence[Element], folders: list[Path]) -> None:
    """Record elements before they are made. Add the folders that this makes to `folders`."""
    content = json.dumps(list(map(_show_element, elements)))
    for attempt in range(_TRIES):
        folders += files.ensure_directory(FOLDER.parent)
        boot.drop_earlier(FOLDER.parent)
        folders += files.ensure_directory(FOLDER)
        try:
            files.write_atomic(_path(kind, owner), content.encode(), beside=_unfinished(kind, owner))
        except CniError:
            # A failing call that had made the folder may just have removed it.
            if FOLDER.is_dir() or attempt == _TRIES - 1:
                raise
        else:
            return


def read(kind: str, owner: Owner) -> list[Element] | None:
    """Return the recorded elements, None without a valid record."""
    content = files.read(_path(kind, owner))
    if content is None or boot.drop_earlier(FOLDER.parent):
        return None
    with suppress(ValueError, TypeError, AttributeError, RecursionError):
        return [_read_element(*each) for each in json.loads(content)]
    return None


def _show_element(element: Element) -> list[int | str]:
    key, value = element.key.hex(), element.value.hex()
    # Earlier releases do not know intervals.
    end = [element.end.hex()] if element.end else []
    return [element.family, element.set_name, key, value, element.purpose, *end]


def _read_element(family: int, name: str, key: str, value: str, purpose: str, end: str = "") -> Element:  # noqa: PLR0913, PLR0917 - as written
    # All of it goes into messages.
    if family not in FAMILIES or not name.isascii() or len(key + value + end) > _MOST_DIGITS:
        raise ValueError(f"{name} is no set of ours")
    last = bytes.fromhex(end)
    return Element(family, name, bytes.fromhex(key), bytes.fromhex(value), str(purpose), end=last)


def exists(kind: str, owner: Owner) -> bool:
    """Return whether a record exists, valid or not."""
    return os.path.exists(_path(kind, owner))


def identity() -> str:
    """Return the identity of the folder, "" if it does not exist. A new folder has a new one."""
    try:
        status = FOLDER.stat()
    except OSError:
        return ""
    return f"{status.st_dev}:{status.st_ino}"


def remove(kind: str, owner: Owner) -> None:
    """Delete the record of an owner's elements of a kind."""
    if not files.remove(_path(kind, owner)):
        # A crash in a first ADD leaves this one.
        files.remove(FOLDER / _unfinished(kind, owner))


def list_invalid(network: str, valid: frozenset[str]) -> list[Path]:
    """List the records of a network's owners whose tags are not in `valid`."""
    found = sorted(FOLDER.glob(f"{owners.network_tag(network)}*"))
    return [path for path in found if path.name.partition(".")[0] not in valid]


def remove_invalid(network: str, valid: frozenset[str]) -> None:
    """Delete the records of attachments whose tag is not in `valid`."""
    for path in list_invalid(network, valid):
        files.remove(path)
