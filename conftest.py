"""Fixtures for all tests: the plugins' executables, and a host of their own to run them on.

PYCNI_BINDIR runs the same tests against plugins that are installed, instead of the sources.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni.testing import Host, make_bindir, why_no_namespaces
from plugin_table import ROOT, declared, packages

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def bindir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with an executable for every plugin."""
    installed = os.environ.get("PYCNI_BINDIR")
    return Path(installed) if installed else make_bindir(tmp_path_factory.mktemp("cni"), packages(declared()))


@pytest.fixture(scope="session")
def bundle() -> Path:
    """Give the frozen suite, made of the sources as they are now."""
    command = ["/usr/bin/env", "make", "--silent", "bundle"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(done.stdout + done.stderr)
    return ROOT / "dist/bundle"


@pytest.fixture
def host(bindir: Path) -> Iterator[Host]:
    """Give a host in private namespaces; the test is skipped where none can be made."""
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    with Host(bindir) as host:
        yield host
