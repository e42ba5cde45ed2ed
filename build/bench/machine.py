"""Describe the machine of a run as far as it affects the figures, without anything that identifies it."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from cni.errors import CniError
from cni.kernel.child import find, run


def describe() -> dict[str, str]:
    """Return processor, memory, kernel and the versions of used programs; "" for a missing one."""
    memory_kib = int(_first(r"MemTotal:\s+(\d+)", Path("/proc/meminfo")) or 0)
    return {
        "processor": _first(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo")) or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory_kib / 2**20:.0f} GiB",
        "virtual machine": "yes" if _first(r"\b(hypervisor)\b", Path("/proc/cpuinfo")) else "no",
        "kernel": platform.release(),
        "system": _first(r'PRETTY_NAME="?([^"\n]+)', Path("/etc/os-release")),
        "python": platform.python_version(),
        "iptables": _version("iptables"),
        "nft": _version("nft"),
    }


def _first(pattern: str, path: Path) -> str:
    try:
        found = re.search(pattern, path.read_text())
    except OSError:
        return ""
    return found[1].strip() if found else ""


def _version(program: str) -> str:
    try:
        said = run([find(program) or program, "--version"]).stdout.decode()
    except CniError:
        return ""
    return said.strip().partition(" ")[2]
