"""Directories that plugins write to, and programs that may run the installed files."""

from __future__ import annotations

import os
import re
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.netns.bundled_host import BINDIR, add_check_del, empty_opt, install
from tests.support import scene

if TYPE_CHECKING:
    from cni.testing import Host

__all__ = ["empty_opt"]

ALLOWED = ("/run/pycni", "/var/lib/cni", "/proc/sys/net/", "/dev/null")
# Calls that change a file by its name; a file that is only read is none of them.
CHANGING = "openat,open,creat,mkdir,mkdirat,mknod,mknodat,link,linkat,symlink,symlinkat,rename,renameat,renameat2,unlink,unlinkat,chmod,fchmodat,chown,fchownat,truncate"  # noqa: E501 - one word for strace


def _changed(log: str) -> set[str]:
    """Return the paths that the calls of strace's log write to."""
    found = set()
    for line in log.splitlines():
        if "openat(" in line or " open(" in line:
            if not re.search(r"O_WRONLY|O_RDWR|O_CREAT", line):
                continue
        elif not re.search(r"\) = 0$", line):
            continue
        for folder, name in re.findall(r'(?:<([^>]*)>, )?"([^"]*)"', line):
            found.add(str(Path(folder, name)) if folder or name.startswith("/") else f"{name}: {line}")
    return found


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_plugins_write_nowhere_else(empty_opt: Host, bundle: Path, tmp_path: Path) -> None:
    install(empty_opt, bundle)
    plugin, told = BINDIR / scene.INTERFACE, tmp_path / "told"
    empty_opt.run(["mv", str(plugin), str(BINDIR / "traced-bridge")])
    trace = f"exec strace -f -y -qq -A -o {told} -e trace={CHANGING} {BINDIR}/traced-bridge"
    empty_opt.run(["cp", "/dev/stdin", str(plugin)], f"#!/bin/sh\n{trace}\n")
    empty_opt.run(["chmod", "755", str(plugin)])
    add_check_del(empty_opt, empty_opt.sandbox("c1"), warm="off")
    changed = _changed(told.read_text())
    assert any(each.startswith("/var/lib/cni/networks/net/10.30.0.2") for each in changed)
    assert [each for each in sorted(changed) if not each.startswith(ALLOWED)] == []


def test_no_file_of_an_installation_is_setuid_or_has_capabilities(empty_opt: Host, bundle: Path) -> None:
    install(empty_opt, bundle)
    files = empty_opt.call(_files_with_rights, str(BINDIR))
    assert files == []


def _files_with_rights(folder: str) -> list[str]:
    paths = [path for path in Path(folder).rglob("*") if not path.is_symlink()]
    assert len(paths) > 100
    return [
        str(path)
        for path in paths
        if path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWGRP | stat.S_IWOTH)
        or "security.capability" in os.listxattr(path)
    ]
