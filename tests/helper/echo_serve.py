"""A helper that returns datagrams with its process ID. Files in a folder say what else it does."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.service import sockets
from cni.service.client import Helper
from cni.service.loop import Due

if TYPE_CHECKING:
    from collections.abc import Callable

HELPER = Helper("echo", "tests.helper.echo_serve", memory_mib=48)
FOLDER = Path("/run/echo")
PORTS, FAIL, REFUSE, EAT = FOLDER / "ports", FOLDER / "fail", FOLDER / "refuse", FOLDER / "eat"


def tick(answer: Callable[[], bool]) -> Due:
    """Keep a socket for each port that is listed."""
    answer()
    if FAIL.exists():
        raise RuntimeError("as the file says")
    if REFUSE.exists():
        raise CniError(Code.STORE, "refused as the file says")
    if EAT.exists():
        EAT.unlink()
        bytearray(256 << 20)
    wanted = PORTS.read_text().split() if PORTS.exists() else []
    for name in sockets.kept().keys() - set(wanted):
        sockets.drop(name)
    for port in set(wanted) - sockets.kept().keys():
        bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        bound.bind(("127.0.0.1", int(port)))
        sockets.keep(port, bound)
    return Due(60 if wanted else None, sorted(sockets.kept()))


def receive(_name: str, bound: socket.socket) -> None:
    """Return a datagram."""
    text, peer = bound.recvfrom(100)
    bound.sendto(b"%s %d" % (text, os.getpid()), peer)
