"""A special file in place of the log blocks no call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.warm.conftest import WarmHost

LOG = "/run/pycni/warm/log"


@pytest.mark.parametrize("command", ["mkfifo", "mkdir", "ln -s /nowhere"])
def test_a_special_file_in_place_of_the_log_blocks_no_call(warm_host: WarmHost, command: str) -> None:
    warm_host.run(["mkdir", "-m", "700", "-p", "/run/pycni", "/run/pycni/warm"])
    warm_host.run([*command.split(), LOG])
    # A call that waits in vain for the server is served by a process of its own.
    parent = warm_host.facts()["parent"]
    assert warm_host.servers() == [int(parent)]
