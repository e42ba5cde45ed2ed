"""The suite as the installer has put it in place, for the runtimes that call it."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from cni.testing import Host, warm
from tests.interop.served import served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def installed(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of plugins that the installer has made."""
    folder = tmp_path_factory.mktemp("installed")
    places = ["--prefix", str(folder / "pycni"), "--bindir", str(folder / "plugins")]
    # The self-test takes a second of CPU in each worker.
    options = [*places, "--units", "no", "--no-self-test"]
    subprocess.run([bundle / "pycni", "--install", *options], check=True, capture_output=True)
    return folder / "plugins"


@pytest.fixture
def served_host(installed: Path) -> Iterator[Host]:
    """Return a host; whatever the test did must have been served by the installed suite's warm server."""
    with Host(installed) as host:
        warm.set_up(host.place)
        assert host.outside
        yield host
        assert served(host) > 0
