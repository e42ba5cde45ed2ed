"""The helper answers equals only: other processes may reach its socket, too."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni_dhcp.records import HELPER

if TYPE_CHECKING:
    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")


def _ask(path: str, request: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(10)
        connection.connect(path)
        try:
            connection.send(request)
            return connection.recv(1000)
        except ConnectionError:
            return b""


def _path() -> str:
    return HELPER.path


def _modes(path: str) -> list[int]:
    return [each.stat().st_mode & 0o777 for each in (Path(path), Path(path).parent)]


def test_only_equals_are_answered(host: Host) -> None:
    host.call(HELPER.wake)
    path = host.call(_path)
    assert host.call(_modes, path) == [0o600, 0o700]
    other = host.sandbox("c1")
    assert other.call(_ask, path, json.dumps({"build": "none"}).encode()) == b""
    for garbage in (b"{", b"[]", b"\xff", b'"x"', b"{}" * 3000):
        host.call(_ask, path, garbage)
    # A request of another build would have ended it.
    assert host.call(HELPER.is_running)
    assert json.loads(host.call(_ask, path, b'{"build": "none"}'))["build"] != "none"
