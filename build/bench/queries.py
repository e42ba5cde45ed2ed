"""Queries to a DNS server, many in flight, and the CPU time that it takes for each."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from bench.calls import CallError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_IN_FLIGHT = 32
_WITHIN_S = 5.0
_TYPE_A = b"\0\1\0\1"
_ANSWERS, _RCODE, _ADDRESS = slice(6, 8), 0x0F, 4


def ask_all(server: str, source: str, names: Sequence[str]) -> list[str]:
    """Ask for the addresses of names, from one socket at `source`. Return them; "" for a name without one."""
    found: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.bind((source, 0))
        asking.connect((server, 53))
        asking.settimeout(_WITHIN_S)
        for at in range(0, len(names), _IN_FLIGHT):
            some = names[at : at + _IN_FLIGHT]
            for number, name in enumerate(some):
                asking.send(_query(number, name))
            answers = dict(_answer(asking, name) for name in some)
            found += [answers[number] for number in range(len(some))]
    return found


def cpu_of_each(pid: int, server: str, source: str, names: Sequence[str]) -> float:
    """Return the seconds of CPU that a server takes for each of some queries."""
    before = _cpu_s(pid)
    ask_all(server, source, names)
    return (_cpu_s(pid) - before) / len(names)


def _query(number: int, name: str) -> bytes:
    labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split("."))
    return number.to_bytes(2, "big") + b"\1\0\0\1" + bytes(6) + labels + b"\0" + _TYPE_A


def _answer(asking: socket.socket, name: str) -> tuple[int, str]:
    try:
        answer = asking.recv(4096)
    except OSError as error:
        raise CallError(f"no answer for {name} or another name: {error}") from error
    has_address = not answer[3] & _RCODE and any(answer[_ANSWERS])
    return int.from_bytes(answer[:2], "big"), socket.inet_ntoa(answer[-_ADDRESS:]) if has_address else ""


def _cpu_s(pid: int) -> float:
    return sum(_spent_ns(pid)) / 1e9


def _spent_ns(pid: int) -> Iterator[int]:
    # proc(5): nanoseconds on a core come first.
    for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - names only
        yield int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])
