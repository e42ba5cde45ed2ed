"""Make our tables whole again when somebody has removed rules or chains from them, for repair.

The text of the table is written once more over what is there, in one transaction: no packet sees half of it.
Elements and the owners' own chains are not looked at; each owner's repair adds its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.firewall import nft
from cni.firewall.nftables import base, records
from cni.firewall.nftables.layout import HOOKED, TABLE, mend_text

if TYPE_CHECKING:
    from collections.abc import Iterable

_TRIES = 10


def mend(families: Iterable[int]) -> None:
    """Mend the tables of these families that exist and are not whole. Raises CniError 101, or 11."""
    for family in families:
        # Rules of a subnet that another call sets up meanwhile are flushed: then they are missing.
        for _ in range(_TRIES):
            if not _mend(family):
                break
        else:
            raise CniError(Code.TRY_AGAIN, "could not mend nftables: others kept changing it")


def _mend(family: int) -> bool:
    """Return whether the table was not whole, and has been mended."""
    if not nft.has_table(family, TABLE):
        return False
    subnets = [each.subnet for each in base.list_subnets(family)]
    if not base.differences(family, subnets, is_guarded=True):
        return False
    unhooked = [name for name in HOOKED if not _has_hook(family, name)]
    nft.run_text(mend_text(family, subnets, unhooked, records.identity()), "mend nftables")
    return True


def _has_hook(family: int, name: str) -> bool:
    found = nft.find_chain(family, TABLE, name)
    return found is not None and found.has_hook
