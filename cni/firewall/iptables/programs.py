"""Which programs this host has as iptables, for hosts that have not just one of that name."""

from __future__ import annotations

import os
import re

from cni.errors import CniError
from cni.firewall import nft
from cni.firewall.iptables import legacy
from cni.kernel import child

# What `iptables --version` says, by what stands behind the names of the variant's programs.
VARIANTS = {"-nft": "nf_tables", "-legacy": "legacy"}

_SAID = re.compile(r"\bv\d[\w.]*(?: \((\w+)\))?")
_TIMEOUT_S = 10
_FAMILIES = {4: nft.IPV4, 6: nft.IPV6}
# What programs have said, by path and identity of the file: a worker asks once, until it is replaced.
_known: dict[tuple[str, int, int, int], str] = {}


def find_with_suffix(version: int, name: str) -> str | None:
    """Give the program that runs transactions where there is none without a variant in its name.

    Where there are both variants it is the one whose table nat this namespace has; nf_tables if neither
    or both have one, as distributions do that know both.
    """
    found = {kind: child.find(f"{name}-{kind}-restore") for kind in ("nft", "legacy")}
    if found["nft"] and found["legacy"] and _is_of_legacy(version):
        return found["legacy"]
    return found["nft"] or found["legacy"]


def variant_of(program: str) -> str:
    """Tell the variant of an "...-restore" program by what `iptables --version` says; "" when it fails."""
    try:
        asked = os.stat(program)  # noqa: PTH116 - on the hot path
        key = (program, asked.st_dev, asked.st_ino, asked.st_mtime_ns)
        if key not in _known:
            # The restore programs of old releases do not know the option.
            plain = program.removesuffix("-restore")
            _known[key] = _ask(plain if os.access(plain, os.X_OK) else program)
    except (OSError, CniError):
        return ""
    return _known[key]


def _ask(program: str) -> str:
    done = child.run([program, "--version"], timeout_s=_TIMEOUT_S)
    said = _SAID.search(done.stdout.decode(errors="replace"))
    # Releases before 1.8 name no variant, as there was one only.
    return (said[1] or VARIANTS["-legacy"]) if said and done.status == 0 else ""


def _is_of_legacy(version: int) -> bool:
    try:
        return legacy.is_loaded(version) and not nft.has_table(_FAMILIES[version], "nat")
    except (CniError, OSError):
        return False
