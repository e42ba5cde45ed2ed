"""Which elements an owner has in nftables: a small file for each, so that DEL need not read all maps.

Written before the elements, so that what it lists may not exist; it lies in /run, as rules too are gone
after a boot, and what another boot has left is dropped. A folder that was lost costs searches; a single file
that was lost, its elements until GC.
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
    # Begins as the record does, so that GC finds it.
    return f"{owners.tag(owner)}.{kind}.unfinished"


def write(kind: str, owner: Owner, elements: Sequence[Element], made: list[Path]) -> None:
    """Write what is about to be made; `made` learns of the folders that had to be made for it."""
    content = json.dumps(
        [[each.family, each.set_name, each.key.hex(), each.value.hex(), each.what] for each in elements]
    )
    for attempt in range(_TRIES):
        made += files.ensure_directory(FOLDER.parent)
        boot.drop_earlier(FOLDER.parent)
        made += files.ensure_directory(FOLDER)
        try:
            files.write_atomic(_path(kind, owner), content.encode(), beside=_unfinished(kind, owner))
        except CniError:
            # A failing call may just have taken away the folder, as it was the one that had made it.
            if FOLDER.is_dir() or attempt == _TRIES - 1:
                raise
        else:
            return


def read(kind: str, owner: Owner) -> list[Element] | None:
    """Give the elements that were written, None when there is no record or it makes no sense."""
    content = files.read(_path(kind, owner))
    if content is None or boot.drop_earlier(FOLDER.parent):
        return None
    with suppress(ValueError, TypeError, AttributeError, RecursionError):
        return [_read_element(*each) for each in json.loads(content)]
    return None


def _read_element(family: int, name: str, key: str, value: str, what: str) -> Element:
    # All of it goes into messages.
    if family not in FAMILIES or not name.isascii() or len(key + value) > _MOST_DIGITS:
        raise ValueError(f"{name} is no set of ours")
    return Element(family, name, bytes.fromhex(key), bytes.fromhex(value), str(what))


def exists(kind: str, owner: Owner) -> bool:
    """Tell whether there is a record, be it one that makes no sense."""
    return os.path.exists(_path(kind, owner))


def identity() -> str:
    """Tell which folder this is, "" for none: one that was removed and made again is another one."""
    try:
        status = FOLDER.stat()
    except OSError:
        return ""
    return f"{status.st_dev}:{status.st_ino}"


def remove(kind: str, owner: Owner) -> None:
    """Forget an owner's elements of a kind."""
    if not files.remove(_path(kind, owner)):
        # What a crash has left of a first ADD.
        files.remove(FOLDER / _unfinished(kind, owner))


def list_invalid(network: str, valid: frozenset[str]) -> list[Path]:
    """List the records of a network's owners whose tags are not in `valid`."""
    found = sorted(FOLDER.glob(f"{owners.network_tag(network)}*"))
    return [path for path in found if path.name.partition(".")[0] not in valid]


def remove_invalid(network: str, valid: frozenset[str]) -> None:
    """Forget what a network's owners had whose tags are not in `valid`."""
    for path in list_invalid(network, valid):
        files.remove(path)
