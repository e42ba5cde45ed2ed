"""A server opens nothing but its socket, and takes no variables from its first caller."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cni.warm import control

if TYPE_CHECKING:
    from tests.warm.conftest import WarmHost

HOSTILE = {
    "PYTHONHOME": "/nowhere/home",
    "PYTHONPATH": "/nowhere/path",
    "PYTHONINSPECT": "1",
    "PYTHONWARNINGS": "nonsense",
    "LD_PRELOAD": "/nowhere/evil.so",
    "LD_LIBRARY_PATH": "/nowhere/lib",
    "TZ": "/nowhere/zone",
}


def test_no_port_is_opened(warm_host: WarmHost) -> None:
    assert warm_host.odd().code == 0
    assert warm_host.servers() != []
    assert warm_host.run(["ss", "-H", "-l", "-n", "-t", "-u", "-w", "-S"]) == ""


def test_variables_of_the_interpreter_never_reach_the_server(warm_host: WarmHost) -> None:
    answer = warm_host.odd(env=HOSTILE)
    assert answer.code == 0
    [server] = warm_host.call(control.find)
    workers = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    assert workers
    for pid in (str(server.pid), *workers):
        assert b"nowhere" not in Path(f"/proc/{pid}/environ").read_bytes()
        assert "nowhere" not in Path(f"/proc/{pid}/maps").read_text()
