"""Find the iptables programs on hosts that have other names for them than `iptables`."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from cni.errors import CniError
from cni.firewall import nft
from cni.firewall.iptables import legacy
from cni.kernel import child

if TYPE_CHECKING:
    from cni.firewall.iptables.execute import Tool

# The variants in the output of `iptables --version`, by the suffix of their programs.
VARIANTS = {"-nft": "nf_tables", "-legacy": "legacy"}

_SAID = re.compile(r"\bv\d[\w.]*(?: \((\w+)\))?")
_TIMEOUT_S = 10
# The variants of programs, by path and identity of the file: a worker asks each program once.
_known: dict[tuple[str, int, int, int], str] = {}


def find_with_suffix(tool: Tool) -> str | None:
    """Return the program that runs transactions if no program without a variant in its name is installed.

    If both variants are installed, return the one whose table exists in this namespace. If neither or both
    tables exist, return the nf_tables one, as distributions with both variants do.
    """
    found = {kind: child.find(f"{tool.name}-{kind}-restore") for kind in ("nft", "legacy")}
    if found["nft"] and found["legacy"] and _is_of_legacy(tool):
        return found["legacy"]
    return found["nft"] or found["legacy"]


def variant_of(program: str) -> str:
    """Return the variant of an "...-restore" program, which `iptables --version` prints; "" if it fails."""
    try:
        asked = os.stat(program)  # noqa: PTH116 - on the hot path
        key = (program, asked.st_dev, asked.st_ino, asked.st_mtime_ns)
        if key not in _known:
            # The restore programs of old releases do not have the option.
            plain = program.removesuffix("-restore")
            _known[key] = _ask(plain if os.access(plain, os.X_OK) else program)
    except (OSError, CniError):
        return ""
    return _known[key]


def _ask(program: str) -> str:
    done = child.run([program, "--version"], timeout_s=_TIMEOUT_S)
    said = _SAID.search(done.stdout.decode(errors="replace"))
    # Releases before 1.8 print no variant, as only one existed.
    return (said[1] or VARIANTS["-legacy"]) if said and done.status == 0 else ""


def _is_of_legacy(tool: Tool) -> bool:
    try:
        return legacy.is_loaded(tool.version, tool.table) and not nft.has_table(
            nft.FAMILIES[tool.version], tool.table
        )
    except (CniError, OSError):
        return False
