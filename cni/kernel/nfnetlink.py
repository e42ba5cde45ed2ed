"""nfnetlink, the netlink family of nftables and conntrack: messages, transactions and one kept socket.

The hot path needs few kinds of messages. Packing them here takes less than 0.1 ms for a batch of elements,
and imports no library. This module knows nothing about tables or rules.

Closing a socket of this family makes the kernel wait for the end of a grace period, about 10 ms after a
commit. So the process keeps its socket until it ends.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code, KernelError
from cni.faults import point
from cni.kernel import netns
from cni.kernel.attributes import attributes, shown_text, u32

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# netlink(7), <linux/netlink.h>
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP = 0x300
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
_NLM_F_ACK_TLVS = 0x200
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLMSGERR_ATTR_MSG = 1
_NETLINK_NETFILTER = 12
_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33

# <linux/netfilter/nfnetlink.h>
SUBSYS_CTNETLINK = 1
SUBSYS_NFTABLES = 10
_BATCH_BEGIN = 16
_BATCH_END = 17
_BATCH_GENID = 1

_HEADER = struct.Struct("=IHHII")
_FAMILY = struct.Struct(">BBH")
# The port ID of the kernel, which no process can have.
_KERNEL = 0
_BUFFER_BYTES = 4 << 20
_ANSWER_WITHIN = struct.pack("@ll", 30, 0)
_DUMP_TRIES = 50
# Larger than any datagram of the kernel's (32 KiB).
_DATAGRAM_BYTES = 1 << 16
_MOST_DATAGRAMS = 1 << 16


class Message(NamedTuple):
    """One request; `kind` is (subsystem << 8 | message), `doing` names its purpose in error messages."""

    doing: str
    kind: int
    family: int
    payload: bytes = b""
    flags: int = 0
    resource: int = 0


class ChangedMeanwhileError(KernelError):
    """A batch was bound to a generation of the ruleset, and another program has committed since."""


class Nfnetlink:
    """An nfnetlink socket in the network namespace in which it was created. Raise KernelError."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER
        )
        # This binds the socket as well. The kernel then refuses messages to it from processes in the
        # namespace, which may forge responses: see `_connect` of cni.kernel.rtnetlink.
        self._socket.connect((_KERNEL, 0))
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        # Not `settimeout`, which asks poll(2) before each call.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _ANSWER_WITHIN)
        self._sequence = _random_numbers()
        self._widen()

    def _widen(self) -> None:
        # A thousand published ports make a batch that the default buffers do not take.
        for forced, polite in ((_SO_SNDBUFFORCE, socket.SO_SNDBUF), (_SO_RCVBUFFORCE, socket.SO_RCVBUF)):
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, forced, _BUFFER_BYTES)
            except PermissionError:
                self._socket.setsockopt(socket.SOL_SOCKET, polite, _BUFFER_BYTES)

    def close(self) -> None:
        """Close the socket; closing the last copy waits for the kernel (see above)."""
        self._socket.close()

    def renew(self) -> None:
        """Take over the socket from another process: drop its replies, and use other sequence numbers."""
        for _ in range(_MOST_DATAGRAMS):
            try:
                self._socket.recv(_DATAGRAM_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError:
                # ENOBUFS: the kernel dropped replies that this loop drops, too.
                continue
        self._sequence = _random_numbers()

    def commit(self, messages: Sequence[Message], generation: int | None = None) -> None:
        """Apply nftables messages in one transaction: all of them or, if this raises, none.

        With `generation` the kernel refuses the batch, as `ChangedMeanwhileError`, if the ruleset has
        changed since that number was read.
        """
        if not messages:
            return
        bound = b"" if generation is None else u32(_BATCH_GENID, generation)
        batch = [
            Message("commit", _BATCH_BEGIN, 0, bound, resource=SUBSYS_NFTABLES),
            *messages[:-1],
            # The kernel reports errors unasked. One acknowledgement, of the last message, reports success.
            messages[-1]._replace(flags=messages[-1].flags | NLM_F_ACK),
            Message("commit", _BATCH_END, 0, resource=SUBSYS_NFTABLES),
        ]
        numbered = {next(self._sequence): message for message in batch}
        doing = {sequence: message.doing for sequence, message in numbered.items()}
        first, *_, last, _ = numbered
        data = b"".join(_encoded(message, sequence) for sequence, message in numbered.items())
        self._send(data, doing[last])
        self._await_commit(doing, first, last)
        point("nftables.committed")

    def _await_commit(self, doing: dict[int, str], first: int, last: int) -> None:
        failure: KernelError | None = None
        while True:
            try:
                replies = list(self._received(doing[last]))
            except KernelError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                # There is no room for so many refusals. The kernel has sent all of them by now.
                raise self._first_refusal(doing) or error from None
            for kind, _, sequence, payload in replies:
                if kind != _NLMSG_ERROR or sequence not in doing:
                    continue
                failure = failure or _refusal(payload, doing[sequence])
                stale = failure is not None and failure.errno == errno.ERESTART
                if sequence == last or (sequence == first and stale):
                    if failure:
                        raise failure
                    return

    def _first_refusal(self, doing: dict[int, str]) -> KernelError | None:
        """Read all that the kernel has sent, as nothing else would find room; return the first refusal."""
        failure: KernelError | None = None
        for _ in range(_MOST_DATAGRAMS):
            try:
                replies = list(self._received("", socket.MSG_DONTWAIT))
            except KernelError as error:
                if error.errno == errno.ENOBUFS:
                    continue
                break
            for kind, _, sequence, payload in replies:
                if kind == _NLMSG_ERROR and sequence in doing:
                    failure = failure or _refusal(payload, doing[sequence])
        return failure

    def request(self, message: Message) -> list[bytes]:
        """Send one message outside of a transaction; return the payloads of the replies."""
        return self._ask(message, NLM_F_ACK)

    def find(self, message: Message) -> bytes | None:
        """Return the attributes of one object; None if the kernel has none."""
        try:
            replies = self.request(message)
        except KernelError as error:
            if error.errno != errno.ENOENT:
                raise
            return None
        return replies[0] if replies else None

    def find_all(self, messages: Sequence[Message]) -> list[bytes | None]:
        """Return for each message what `find` returns, in one send."""
        asked = {next(self._sequence): place for place, message in enumerate(messages)}
        if not asked:
            return []
        # Without acknowledgements: the kernel sends a response or a refusal for each message anyway.
        data = b"".join(_encoded(messages[place], sequence) for sequence, place in asked.items())
        self._send(data, messages[0].doing)
        found: list[bytes | None] = [None] * len(messages)
        failure: KernelError | None = None
        while asked:
            for kind, _, sequence, payload in self._received(messages[0].doing):
                if (place := asked.pop(sequence, None)) is None:
                    continue
                if kind != _NLMSG_ERROR:
                    found[place] = payload[_FAMILY.size :]
                    continue
                refusal = _refusal(payload, messages[place].doing)
                if refusal and refusal.errno != errno.ENOENT:
                    failure = failure or refusal
        if failure:
            raise failure
        return found

    def dump(self, message: Message) -> list[bytes]:
        """Return all objects of a kind; [] if their table or chain does not exist."""
        for _ in range(_DUMP_TRIES):
            try:
                return self._ask(message, NLM_F_DUMP)
            except InterruptedError:
                continue
            except KernelError as error:
                if error.errno != errno.ENOENT:
                    raise
                return []
        raise CniError(Code.TRY_AGAIN, f"{message.doing}: the ruleset kept changing while it was read")

    def _ask(self, message: Message, flags: int) -> list[bytes]:
        sequence = next(self._sequence)
        self._send(_encoded(message._replace(flags=message.flags | flags), sequence), message.doing)
        replies: list[bytes] = []
        interrupted = False
        while True:
            for kind, seen, answered, payload in self._received(message.doing):
                if answered != sequence:
                    continue
                interrupted |= bool(seen & NLM_F_DUMP_INTR)
                if kind in {_NLMSG_ERROR, _NLMSG_DONE}:
                    failure = _refusal(payload, message.doing)
                    if failure:
                        raise failure
                    if interrupted:
                        raise InterruptedError
                    return replies
                replies.append(payload[_FAMILY.size :])

    def _send(self, data: bytes, doing: str) -> None:
        try:
            self._socket.send(data)
        except OSError as error:
            raise KernelError(doing, error.errno or errno.EIO) from error

    def _received(self, doing: str, flags: int = 0) -> Iterator[tuple[int, int, int, bytes]]:
        try:
            data, (sender, _) = self._socket.recvfrom(_DATAGRAM_BYTES, flags)
        except BlockingIOError as error:
            raise KernelError(doing, errno.ETIMEDOUT) from error
        except OSError as error:
            raise KernelError(doing, error.errno or errno.EIO) from error
        if sender != _KERNEL:
            return
        at = 0
        while at + _HEADER.size <= len(data):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
            yield kind, flags, sequence, data[at + _HEADER.size : at + length]
            at += (max(length, _HEADER.size) + 3) & ~3


def _random_numbers() -> Iterator[int]:
    """Return sequence numbers from a first one of 31 bits that no other process can guess."""
    return count(int.from_bytes(os.urandom(4), "little") >> 1)


def _encoded(message: Message, sequence: int) -> bytes:
    length = _HEADER.size + _FAMILY.size + len(message.payload)
    header = _HEADER.pack(length, message.kind, message.flags | NLM_F_REQUEST, sequence, 0)
    return header + _FAMILY.pack(message.family, 0, message.resource) + message.payload


def _refusal(payload: bytes, doing: str) -> KernelError | None:
    """Return the error in an NLMSG_ERROR or NLMSG_DONE; None for no error."""
    code = -int.from_bytes(payload[:4], "little", signed=True) if payload else 0
    if code <= 0:
        return None
    said = attributes(payload[4 + _HEADER.size :]).get(_NLMSGERR_ATTR_MSG, b"")
    kind = ChangedMeanwhileError if code == errno.ERESTART else KernelError
    return kind(doing, code, shown_text(said))


_kept: dict[tuple[int, int], Nfnetlink] = {}
# The socket returned last, for this process and this number of moves between namespaces.
_last: tuple[tuple[int, int], Nfnetlink] | None = None


def keep(opened: Nfnetlink) -> None:
    """Let `kept` return this socket, which the parent process has opened in this network namespace."""
    opened.renew()
    _kept[_own_key()] = opened


def kept() -> Nfnetlink:
    """Return this process's socket in its present network namespace; the socket keeps the namespace alive.

    A forked child has a socket of its own: on a shared one either process could read a reply.
    """
    global _last  # noqa: PLW0603 - stat of the namespace for each message costs more than the message
    whose = os.getpid(), netns.moves()
    if _last is None or _last[0] != whose:
        _last = whose, _find_kept()
    return _last[1]


def _find_kept() -> Nfnetlink:
    key = _own_key()
    if key not in _kept:
        try:
            _kept[key] = Nfnetlink()
        except OSError as error:
            raise KernelError("open an nfnetlink socket", error.errno or errno.EIO) from error
    return _kept[key]


def _own_key() -> tuple[int, int]:
    return os.getpid(), os.stat("/proc/thread-self/ns/net").st_ino  # noqa: PTH116 - pathlib costs more
