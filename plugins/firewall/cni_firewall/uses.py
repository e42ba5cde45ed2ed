"""Which attachments use a rule that several share: one empty file for each use.

`/run/pycni/firewall/KIND/NAME/ATTACHMENT`. The last file of a folder is that of the last attachment, so that
an ADD and a DEL cost the same however many others there are. Calls change files and rules with `locked` held.
Files are made before rules and removed after them. A boot removes both.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code
from cni.faults import point
from cni.firewall import owners
from cni.state import boot, files

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from cni.firewall.intents import Owner

FOLDER = Path("/run/pycni/firewall")
LOCK = Path("/run/pycni/firewall.lock")


class Use(NamedTuple):
    """A rule that attachments share: its kind, which may have a slash, and its name within the kind."""

    kind: str
    name: str

    @property
    def folder(self) -> str:
        """The folder of its files."""
        return f"{FOLDER}/{self.kind}/{self.name}"


def locked() -> AbstractContextManager[None]:
    """Keep other calls from changing uses and shared rules. Raise CniError 11 or 106."""
    return boot.locked_state(LOCK)


def hold(use: Use, owner: Owner) -> bool:
    """Note that an attachment uses a rule; return whether no other attachment did."""
    folder = Path(use.folder)
    try:
        files.ensure_directory(folder)
        path = f"{folder}/{owners.tag(owner)}"
        if not os.path.lexists(path):
            os.close(
                os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            )
            point("store.written")
    except OSError as error:
        raise CniError(
            Code.STORE, f"could not write to {folder}: {(error.strerror or str(error)).lower()}"
        ) from error
    return not is_used_by_others(use, owner)


def is_used_by_others(use: Use, owner: Owner) -> bool:
    """Return whether another attachment uses a rule."""
    tag = owners.tag(owner)
    try:
        with os.scandir(use.folder) as entries:
            return any(each.name != tag for each in entries)
    except OSError:
        return False


def release(use: Use, owner: Owner) -> None:
    """Remove the note of `hold`, and folders that are empty then."""
    _remove(use, owners.tag(owner))


def _remove(use: Use, tag: str) -> None:
    files.remove(f"{use.folder}/{tag}")
    folder = Path(use.folder)
    with suppress(OSError):
        while folder != FOLDER.parent:
            folder.rmdir()
            folder = folder.parent


def list_names(kind: str) -> list[str]:
    """Return the names of a kind that are used."""
    try:
        return sorted(each.name for each in Path(f"{FOLDER}/{kind}").iterdir())
    except OSError:
        return []


def is_used(use: Use) -> bool:
    """Return whether any attachment uses a rule."""
    return Path(use.folder).is_dir()


def attached(network: str) -> str:
    """Return the kind that has the links of a network."""
    return f"networks/{owners.network_tag(network)}"


def allowing(network: str) -> str:
    """Return the kind that has the links which the containers of a network may connect to."""
    return f"allow/{owners.network_tag(network)}"


def list_invalid(prefix: str, valid: frozenset[str]) -> list[tuple[Use, str]]:
    """Return the notes of attachments whose tags begin with `prefix` and are not in `valid`."""
    found = []
    for folder, _, names in os.walk(FOLDER):
        kind, _, name = folder.removeprefix(f"{FOLDER}/").rpartition("/")
        found += [(Use(kind, name), each) for each in names if each.startswith(prefix) and each not in valid]
    return sorted(found)


def forget(use: Use, tag: str) -> None:
    """Remove a note of an attachment that is known by its tag only."""
    with locked():
        _remove(use, tag)
