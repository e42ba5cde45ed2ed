"""A special file in place of the log blocks no call."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.warm.conftest import WarmHost

LOG = "/run/pycni/warm/log"
# A call waits for 10 s for a server that does not serve it.
SOON_S = 5


@pytest.mark.parametrize("command", ["mkfifo", "mkdir", "ln -s /nowhere"])
def test_a_special_file_in_place_of_the_log_blocks_no_call(warm_host: WarmHost, command: str) -> None:
    warm_host.run(["mkdir", "-m", "700", "-p", "/run/pycni", "/run/pycni/warm"])
    warm_host.run([*command.split(), LOG])
    started = time.monotonic()
    warm_host.odd().must()
    assert time.monotonic() - started < SOON_S
    assert len(warm_host.servers()) == 1
