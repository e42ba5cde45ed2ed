"""Count what a piece of work asks of the kernel, in the process that does it: no clock is looked at.

What is sent really goes to the kernel and what comes is what it says; both are only counted on their way.
For a child of `host.call`, as nothing of this can be switched off again.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cni.kernel.attributes import attributes, shown_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MESSAGES, SENT, RECEIVED = "netlink messages", "netlink bytes sent", "netlink bytes received"
OPENED, LISTED, READS, READ = "files opened", "folders listed", "reads", "bytes read"
PROCESSES = "processes"
NETLINK = (MESSAGES, SENT, RECEIVED)
FILES = (OPENED, LISTED, READS, READ)

_HEADER = struct.Struct("=IHHII")
_NETFILTER, _NFTABLES = 12, 10
_NLM_F_DUMP = 0x300
_BATCH_BEGIN = 16
_GETRULE = _NFTABLES << 8 | 7
_RULE_CHAIN = 2
_LISTING_EVENTS = {"os.listdir", "os.scandir"}
_PROCESS_EVENTS = {"os.posix_spawn", "os.fork", "subprocess.Popen"}
# Whether a thread has ended is asked until it has.
_OWN_THREADS = "/proc/self/task"


class Sent(NamedTuple):
    """A netlink message: its protocol (0 rtnetlink, 12 nfnetlink), kind and flags.

    `chain` is that of a question for the rules of a chain.
    """

    protocol: int
    kind: int
    flags: int
    chain: str = ""

    @property
    def is_listing(self) -> bool:
        """Whether it asks for all that there is of something."""
        return self.flags & _NLM_F_DUMP == _NLM_F_DUMP

    @property
    def is_for_netfilter(self) -> bool:
        """Whether it is for nftables or connection tracking."""
        return self.protocol == _NETFILTER

    @property
    def begins_batch(self) -> bool:
        """Whether a transaction begins here."""
        return self.is_for_netfilter and self.kind == _BATCH_BEGIN


class Cost(NamedTuple):
    """The measured costs: figures by name, and the messages sent and folders listed, in order.

    `most` are the figures of the dearest round: how much of what the kernel announces a call still reads
    depends on the moment.
    """

    figures: dict[str, int]
    most: dict[str, int]
    sent: tuple[Sent, ...]
    folders: tuple[str, ...]

    def listings(self) -> list[Sent]:
        """Return the nftables requests that list all objects of a type."""
        return [each for each in self.sent if each.is_listing and each.is_for_netfilter]

    def batches(self) -> int:
        """Return the number of transactions."""
        return sum(each.begins_batch for each in self.sent)


def least(costs: Sequence[Cost]) -> Cost:
    """Return the least and the most of each figure: some rounds ask once more whether the kernel is ready."""
    figures = {name: min(cost.figures[name] for cost in costs) for name in costs[0].figures}
    most = {name: max(cost.most[name] for cost in costs) for name in figures}
    shortest = min(costs, key=lambda cost: len(cost.sent))
    return Cost(figures, most, shortest.sent, shortest.folders)


class Meter:
    """Counts from when it was made until `read`, which begins anew. One for a process.

    A question that is sent again at once counts once: whether the kernel has brought a link up is asked until
    it has, on a busy machine more often.
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._sent: list[Sent] = []
        self._folders: list[str] = []
        self._asked: tuple[int, bytes, bytes] | None = None
        self._is_repeated = False
        self._io = _read_io()
        socket.socket = _counted(self)  # type: ignore[misc]
        sys.addaudithook(self._hear)

    def read(self) -> Cost:
        """Return the costs since the last call."""
        io, before = _read_io(), self._io
        figures = {name: self._counts[name] for name in (*NETLINK, OPENED, LISTED, PROCESSES)}
        figures |= {name: io[name] - before[name] for name in io}
        cost = Cost(figures, figures, tuple(self._sent), tuple(self._folders))
        self._counts, self._sent, self._folders = Counter(), [], []
        self._io = _read_io()
        return cost

    def count_sent(self, protocol: int, data: bytes) -> None:
        """Count netlink messages on their way to the kernel."""
        # Without the sequence number.
        asked = (protocol, data[:8], data[_HEADER.size :])
        self._is_repeated = asked == self._asked
        self._asked = asked
        if self._is_repeated:
            return
        messages = list(_messages(protocol, data))
        self._sent += messages
        self._counts.update({MESSAGES: len(messages), SENT: len(data)})

    def count_received(self, data: bytes) -> None:
        """Count what the kernel has told over netlink."""
        self._counts[RECEIVED] += 0 if self._is_repeated else len(data)

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            self._counts[OPENED] += 1
        elif event in _LISTING_EVENTS and args[0] != _OWN_THREADS:
            self._counts[LISTED] += 1
            self._folders.append(str(args[0]))
        elif event in _PROCESS_EVENTS:
            self._counts[PROCESSES] += 1


def _counted(meter: Meter) -> type[socket.socket]:
    class Counted(socket.socket):
        def send(self, data: Any, *flags: Any) -> int:
            if self.family == socket.AF_NETLINK:
                meter.count_sent(self.proto, bytes(data))
            return super().send(data, *flags)

        def recv(self, *args: Any) -> bytes:
            received = super().recv(*args)
            if self.family == socket.AF_NETLINK:
                meter.count_received(received)
            return received

        def recvfrom(self, *args: Any) -> tuple[bytes, Any]:
            received, sender = super().recvfrom(*args)
            if self.family == socket.AF_NETLINK:
                meter.count_received(received)
            return received, sender

    return Counted


def _messages(protocol: int, data: bytes) -> Iterator[Sent]:
    place = 0
    while place + _HEADER.size <= len(data):
        length, kind, flags, _, _ = _HEADER.unpack_from(data, place)
        chain = ""
        if (protocol, kind) == (_NETFILTER, _GETRULE):
            # A family and a version come before the attributes.
            asked = attributes(data[place + _HEADER.size + 4 : place + length])
            chain = shown_text(asked.get(_RULE_CHAIN, b""))
        yield Sent(protocol, kind, flags, chain)
        place += (max(length, _HEADER.size) + 3) & ~3


def _read_io() -> dict[str, int]:
    """Return the bytes that this process and children that have ended have read from files, and how often."""
    told = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return {READ: int(told["rchar"]), READS: int(told["syscr"])}
