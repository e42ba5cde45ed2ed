"""Executables that several files of tests share, so that each process of the test run makes them once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.testing.executables import make_warm_bindir
from cni.testing.server_zygote import ServerZygote
from plugin_table import declared, packages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def served_bindir(launcher: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield a folder of executables whose servers are forked: the imports of a server take 0.3 s of CPU."""
    bindir = make_warm_bindir(tmp_path_factory.mktemp("served"), packages(declared()), launcher)
    with ServerZygote(bindir):
        yield bindir
