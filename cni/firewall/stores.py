"""Find out for STATUS whether an ADD can write the files that it needs beside its rules."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.firewall import nft, orphans, select
from cni.firewall.iptables import transaction
from cni.firewall.iptables.execute import Tool
from cni.firewall.nftables import records
from cni.state import files
from cni.state.lock import locked

if TYPE_CHECKING:
    from pathlib import Path


def check(asked: str | None, purpose: str) -> None:
    """Raise CniError 106 if a file that the backend needs cannot be written, or a lock cannot be made.

    `asked` and `purpose` are those of `select.choose`. Without a usable backend, `probe` reports that.
    """
    try:
        name = select.choose(asked, purpose).name
    except CniError:
        return
    if name == "nftables":
        files.check_writable(records.FOLDER)
        return
    if _may_start_programs():
        check_children()
    try:
        # Only an ADD that has to make shared chains needs it.
        check_lock(transaction.LOCK, 0)
    except CniError as error:
        if error.code != Code.TRY_AGAIN:
            raise


def _may_start_programs() -> bool:
    """Return whether an ADD that masquerades may start iptables: netlink adds to what iptables-nft has made.

    Other ADDs need files in the same folder anyway.
    """
    return not all(
        Tool(version, "nat").is_nf_tables() and nft.find_chain(family, "nat", "POSTROUTING")
        for version, family in nft.FAMILIES.items()
    )


def check_children() -> None:
    """Raise CniError 106 if no lock can be made for a program that changes rules."""
    _check_place(orphans.FOLDER)


def check_lock(path: Path, within_s: float = 30) -> None:
    """Raise CniError 106 if a lock cannot be made, 11 if another process holds it. Nothing remains."""
    if os.path.lexists(path):
        with locked(path, within_s):
            pass
    else:
        _check_place(path.parent)


def _check_place(folder: Path) -> None:
    """Raise CniError 106 if no empty file can be made in a folder, which need not exist.

    `files.check_writable` requires more: on a full disk locks can be made.
    """
    files.check_keepers(folder)
    existing = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
    name = existing / f"{files.UNFINISHED_PREFIX}{os.urandom(6).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        os.close(os.open(name, flags, 0o600))
        name.unlink()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CniError(Code.STORE, f"could not write to {existing}: {reason}") from error
