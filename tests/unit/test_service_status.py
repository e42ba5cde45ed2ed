"""The status file of a process that serves."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from cni.service import status

if TYPE_CHECKING:
    from pathlib import Path

SHORT: dict[str, Any] = {"restarts": 1}
LONG: dict[str, Any] = {"helper": 4711, "holds": ["5353"], "restarts": 0}
WRITES = 5000


def test_a_reader_always_finds_a_whole_report(tmp_path: Path) -> None:
    path = str(tmp_path / "echo.status")
    fd = status.create(path)
    status.write(fd, b'{"restarts": 1}')
    seen = []
    has_ended = threading.Event()

    def read() -> None:
        while not has_ended.is_set():
            seen.append(status.read(path))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(WRITES):
        status.write(fd, b'{"helper": 4711, "holds": ["5353"], "restarts": 0}')
        status.write(fd, b'{"restarts": 1}')
    has_ended.set()
    reader.join()
    os.close(fd)
    assert {str(each) for each in seen} <= {str(SHORT), str(LONG)}
    assert status.read(path) == SHORT


def test_what_is_no_report_is_none(tmp_path: Path) -> None:
    path = tmp_path / "echo.status"
    assert status.read(str(path)) == {}
    for text in ("", "{", "[1]", "[" * 100_000):
        path.write_text(text)
        assert status.read(str(path)) == {}
