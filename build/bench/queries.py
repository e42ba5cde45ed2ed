"""Queries to a DNS server, many in flight, and the CPU time that it takes for each."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import dns.message

from bench.calls import CallError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_IN_FLIGHT = 32
_WITHIN_S = 5.0


def ask_all(server: str, source: str, names: Sequence[str]) -> list[str]:
    """Ask for the addresses of names, from one socket at `source`. Return them; "" for a name without one."""
    # dnspython takes longer than servers do: none of its work comes between two packets.
    queries = [dns.message.make_query(name, "A", id=number).to_wire() for number, name in enumerate(names)]
    received: list[bytes] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.bind((source, 0))
        asking.connect((server, 53))
        asking.settimeout(_WITHIN_S)
        for at in range(0, len(queries), _IN_FLIGHT):
            some = queries[at : at + _IN_FLIGHT]
            for each in some:
                asking.send(each)
            received += [_receive(asking, names[at]) for _ in some]
    answers = {each.id: each for each in map(dns.message.from_wire, received)}
    return [_address(answers[number]) for number in range(len(names))]


def cpu_of_each(pid: int, server: str, source: str, names: Sequence[str]) -> float:
    """Return the seconds of CPU that a server takes for each of some queries."""
    before = _cpu_s(pid)
    ask_all(server, source, names)
    return (_cpu_s(pid) - before) / len(names)


def _receive(asking: socket.socket, name: str) -> bytes:
    try:
        return asking.recv(4096)
    except OSError as error:
        raise CallError(f"no answer for {name} or a name after it: {error}") from error


def _address(answer: dns.message.Message) -> str:
    addresses = [str(each) for found in answer.answer for each in found]
    return addresses[-1] if addresses else ""


def _cpu_s(pid: int) -> float:
    return sum(_spent_ns(pid)) / 1e9


def _spent_ns(pid: int) -> Iterator[int]:
    # proc(5): nanoseconds on a core come first.
    for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - names only
        yield int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])
