"""Check the caller's rights for verbs that change namespaces, rules and files of root."""

from __future__ import annotations

import os
from pathlib import Path

from cni.errors import CniError, Code

# The numbers are those of capabilities(7).
_CAP_NET_ADMIN, _CAP_SYS_ADMIN = 12, 21


def require_root(command: str) -> None:
    """Raise CniError 5 unless the caller is root, also of a user namespace, or has the capabilities."""
    if os.geteuid() == 0 or _has_capabilities():
        return
    raise CniError(
        Code.IO_FAILURE,
        f"{command}: operation not permitted for user {os.geteuid()}",
        f"Run as root: sudo {command} ...",
    )


def _has_capabilities() -> bool:
    needed = 1 << _CAP_NET_ADMIN | 1 << _CAP_SYS_ADMIN
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return False
    effective = next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)
    return effective & needed == needed
