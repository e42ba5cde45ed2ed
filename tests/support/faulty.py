"""A pytest plugin: executables that obey the variable of `cni.testing.faults`, made once for all tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.testing.executables import make_warm_bindir
from cni.testing.server_zygote import ServerZygote
from cni.testing.zygote import Zygote
from plugin_table import declared, packages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def faulty_bindir(launcher: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield a folder of executables that obey the variable."""
    folder = tmp_path_factory.mktemp("faults")
    bindir = make_warm_bindir(folder, packages(declared()), launcher, with_faults=True)
    with ServerZygote(bindir):
        yield bindir


@pytest.fixture(scope="session")
def faulty_zygote(faulty_bindir: Path) -> Iterator[Zygote]:
    """Yield the process that forks COLD calls. Their points are those of a start, which costs 0.1 s."""
    with Zygote(faulty_bindir) as zygote:
        yield zygote
