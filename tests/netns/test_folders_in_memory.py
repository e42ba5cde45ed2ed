"""Where folders of tests are: in memory only if there is enough, and if nobody has chosen another place."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support import memory

if TYPE_CHECKING:
    from cni.testing import Host

ROOM = f"size={memory.FREE + (1 << 20)}"


@pytest.mark.parametrize(
    ("options", "available", "expected"),
    [
        (ROOM, 0, True),
        (ROOM, 1 << 60, False),
        ("size=1g", 0, False),
        (f"noexec,{ROOM}", 0, False),
        (f"ro,{ROOM}", 0, False),
    ],
    ids=["room", "little memory", "little room", "no programs", "read-only"],
)
def test_only_a_file_system_with_room_is_used(
    host: Host, monkeypatch: pytest.MonkeyPatch, options: str, available: int, *, expected: bool
) -> None:
    monkeypatch.setattr(memory, "AVAILABLE", available)
    host.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(memory.SHARED)])
    assert host.call(memory.has_room) is expected


@pytest.mark.parametrize(("chosen", "expected"), [("", str(memory.SHARED)), ("/elsewhere", "/elsewhere")])
def test_a_chosen_place_is_kept(monkeypatch: pytest.MonkeyPatch, chosen: str, expected: str) -> None:
    monkeypatch.setattr(memory, "has_room", lambda: True)
    monkeypatch.setattr(os, "environ", {memory.VARIABLE: chosen} if chosen else {})
    memory.pytest_configure()
    assert os.environ == {memory.VARIABLE: expected}
