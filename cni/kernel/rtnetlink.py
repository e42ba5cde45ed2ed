"""Requests to the kernel over rtnetlink.

A `Netlink` is a socket in one namespace: opened there it stays there, wherever the process goes. A
batch is one send(2) up to a size that answers have room for; the kernel works through all of its messages
in order, also after one failed, and reports each failure. Nothing here knows what a bridge or an address
is. Processes in the namespace may forge the kernel's messages: `_connect` and `_receive` refuse these.

The module of an object packs its messages by struct. `message_classes` encodes and decodes what is rare.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from cni.errors import IPV6_REMEDY, CniError, Code, KernelError
from cni.faults import point

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cni.kernel.netns import Netns

# Of every netlink family, see netlink(7).
NLM_F_REQUEST, NLM_F_ACK = 0x1, 0x4
NLM_F_ROOT_AND_MATCH = 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
_NLM_F_DUMP_INTR, _NLM_F_ACK_TLVS = 0x10, 0x200
_NLMSG_ERROR, _NLMSG_DONE = 0x2, 0x3
_SOL_NETLINK = 270
_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK = 10, 11, 12
_NLMSGERR_ATTR_MSG = 1
_NLA_TYPE_MASK = 0x3FFF
NLA_F_NESTED = 0x8000

# Of this one, see rtnetlink(7).
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_GETNEIGH = 28, 30
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34
RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC = 36, 37, 38
RTM_NEWTCLASS, RTM_DELTCLASS, RTM_GETTCLASS = 40, 41, 42
RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 44, 45, 46
RTM_GETNSID = 90
RTMGRP_LINK = 0x1
AF_BRIDGE = 7

# The port ID of the kernel. The kernel assigns no process this one, and no process can forge it.
_KERNEL = 0

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port id
_ERRNO = struct.Struct("=i")
_ATTRIBUTE = struct.Struct("=HH")
_RECEIVE_BYTES = 1 << 16
_ANSWER_WITHIN_S = 60
_ANSWER_WITHIN = struct.pack("@ll", _ANSWER_WITHIN_S, 0)
_DUMP_ATTEMPTS = 20
# The kernel answers a whole send before anything is read: about 280 acknowledgements fit into the buffer
# that a socket has by default, fewer refusals with a text.
_MOST_AT_ONCE = 64
# More datagrams than any buffer holds.
_MOST_DATAGRAMS = 1 << 16


class Message(NamedTuple):
    """One request; `doing` names its purpose in error messages.

    Either `body` is all that follows the netlink header, or `fields` and `attrs` are those of pyroute2's
    message class: `attrs` are pairs of name and value; a nested attribute's value is {"attrs": [...]}.
    """

    doing: str
    kind: int
    flags: int = 0
    fields: Mapping[str, int] = MappingProxyType({})
    attrs: Sequence[tuple[str, Any]] = ()
    body: bytes = b""


class _Reply(NamedTuple):
    kind: int
    flags: int
    payload: bytes


class Netlink:
    """An rtnetlink socket in a namespace, the calling thread's own by default; a context manager.

    A socket that listens to `groups` (RTMGRP_LINK) sends no requests.
    """

    def __init__(self, ns: Netns | None = None, groups: int = 0) -> None:
        if ns is None:
            self._socket = _open_socket()
        else:
            with ns.entered():
                self._socket = _open_socket()
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        # A kernel thread that hangs must not block the runtime for ever.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _ANSWER_WITHIN)
        self._connect(groups)
        self._number = _random_number()

    def _connect(self, groups: int) -> None:
        """Bind the socket to a port ID and accept messages of the kernel only.

        A process with CAP_NET_ADMIN in the namespace can send any bytes to any port ID there. The kernel
        refuses such a message (ECONNREFUSED) if the receiver is connected to another port ID, so that no
        flood can fill the buffer. It does not check the sender of a multicast: `_receive` does.
        """
        if groups:
            self._socket.bind((0, groups))
        # This also binds a socket that is not bound yet.
        self._socket.connect((_KERNEL, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; twice is fine."""
        self._socket.close()

    def batch(self, messages: Sequence[Message]) -> None:
        """Send all messages at once and read every refusal. Raise KernelError for the first one refused."""
        refusals = [refusal for refusal in self.attempt(messages) if refusal]
        if refusals:
            raise refusals[0]

    def attempt(self, messages: Sequence[Message]) -> list[KernelError | None]:
        """Send all; return the refusal of each message, or None, in the order of the messages.

        Up to 64 messages are one send(2), which no signal interrupts.
        """
        refusals: list[KernelError | None] = []
        for start in range(0, len(messages), _MOST_AT_ONCE):
            refusals += self._attempt_at_once(messages[start : start + _MOST_AT_ONCE])
        return refusals

    def _attempt_at_once(self, messages: Sequence[Message]) -> list[KernelError | None]:
        answers = self._exchange(messages)
        point("netlink.changed")
        return [each if isinstance(each, KernelError) else None for each in answers]

    def request(self, *messages: Message) -> list[bytes]:
        """Send messages at once; return what follows the header of each response, b"" for a change.

        Raise KernelError for the first one refused (ENODEV: no such link).
        """
        answers = self._exchange(messages)
        if len(messages) > 1:
            point("netlink.changed")
        found: list[bytes] = []
        for answer in answers:
            if isinstance(answer, KernelError):
                raise answer
            found.append(answer)
        return found

    def ask(self, *messages: Message) -> list[bytes | KernelError]:
        """Ask for objects in one send; return the response to each message, or the kernel's refusal."""
        return self._exchange(messages)

    def _exchange(self, messages: Sequence[Message]) -> list[bytes | KernelError]:
        """Send messages at once; return the response to each or the kernel's refusal, b"" for a change.

        The kernel processes them in order and sends each refusal unasked. So its response to the last message
        is the end: the object, or the acknowledgement of a change.
        """
        *before, end = messages
        if not _is_question(end):
            end = end._replace(flags=end.flags | NLM_F_ACK)
        last = len(before)
        first = self._send([*before, end], NLM_F_REQUEST)
        answers: list[bytes | KernelError] = [b""] * len(messages)
        is_over = False
        while not is_over:
            for number, reply in self._receive(messages[0].doing):
                place = number - first
                if not 0 <= place <= last:
                    continue
                if reply.kind != _NLMSG_ERROR:
                    answers[place] = reply.payload
                elif refusal := _refusal(messages[place], reply):
                    answers[place] = refusal
                is_over = is_over or place == last
        return answers

    def dump(self, message: Message, *, settled: bool = True) -> list[bytes]:
        """List objects; return what follows each header.

        Ask again if the list changed while it was read, or if the kernel dropped a part of it. Without
        `settled` a list that changed will do: it proves of no object that it is not there.
        """
        for _ in range(_DUMP_ATTEMPTS):
            try:
                replies = self._dump_once(message, settled=settled)
            except KernelError as error:
                # EBUSY: the kernel is still sending the previous list, whose end was not read.
                if error.errno not in {errno.ENOBUFS, errno.EBUSY}:
                    raise
                self._forget()
                continue
            if replies is not None:
                return replies
        because = "kept changing, or found no room, while it was read"
        raise CniError(Code.TRY_AGAIN, f"{message.doing}: the kernel's list {because}")

    def heard(self, within_s: float) -> list[tuple[int, bytes]]:
        """Wait for announcements to the groups; return kind and what follows the header of each message.

        Return [] when the time is up, or when the kernel dropped some.
        """
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        if not poller.poll(within_s * 1000):
            return []
        try:
            return [(reply.kind, reply.payload) for _, reply in self._receive("listen to the kernel")]
        except CniError:
            return []

    def _dump_once(self, message: Message, *, settled: bool) -> list[bytes] | None:
        first = self._send([message], NLM_F_REQUEST | NLM_F_ROOT_AND_MATCH)
        found: list[bytes] = []
        is_whole = True
        while True:
            for number, reply in self._receive(message.doing):
                if number != first:
                    continue
                is_whole = is_whole and not reply.flags & _NLM_F_DUMP_INTR
                if reply.kind not in {_NLMSG_ERROR, _NLMSG_DONE}:
                    found.append(reply.payload)
                    continue
                if refusal := _refusal(message, reply):
                    # EINTR: the table changed during the dump. It means the same as DUMP_INTR.
                    if refusal.errno != errno.EINTR:
                        raise refusal
                    is_whole = False
                return found if is_whole or not settled else None

    def _forget(self) -> None:
        """Read and drop all that the kernel has sent."""
        for _ in range(_MOST_DATAGRAMS):
            try:
                self._socket.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                # Once more ENOBUFS: the kernel dropped messages that this loop drops, too.
                if error.errno != errno.ENOBUFS:
                    return

    def _send(self, messages: Sequence[Message], flags: int) -> int:
        """Send the messages with consecutive sequence numbers; return the first number."""
        first = self._number + 1
        self._number += len(messages)
        data = b"".join(_encode(m, flags, first + i) for i, m in enumerate(messages))
        try:
            self._socket.send(data)
        except OSError as error:
            raise KernelError(messages[0].doing, error.errno or errno.EIO) from error
        return first

    def _receive(self, doing: str) -> Iterator[tuple[int, _Reply]]:
        """Read one datagram and yield its messages with their sequence numbers.

        Yield nothing if a process has sent it.
        """
        try:
            data, (sender, _) = self._socket.recvfrom(_RECEIVE_BYTES)
        except BlockingIOError as error:
            raise CniError(
                Code.TRY_AGAIN, f"{doing}: no answer from the kernel in {_ANSWER_WITHIN_S} s"
            ) from error
        except OSError as error:
            # ENOBUFS: the kernel dropped a response, so the result is unknown.
            raise KernelError(doing, error.errno or errno.EIO) from error
        if sender != _KERNEL:
            return
        place = 0
        while place + _HEADER.size <= len(data):
            length, kind, flags, number, _ = _HEADER.unpack_from(data, place)
            yield number, _Reply(kind, flags, data[place + _HEADER.size : place + length])
            place += max((length + 3) & ~3, _HEADER.size)


def _is_question(message: Message) -> bool:
    """Return whether a message asks for an object: the kernel numbers kinds as new, del, get, set."""
    return message.kind % 4 == RTM_GETLINK % 4


def _random_number() -> int:
    """Return a first sequence number of 31 bits that no other process can guess."""
    return int.from_bytes(os.urandom(4), "little") >> 1


def _open_socket() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)


def _refusal(message: Message, reply: _Reply) -> KernelError | None:
    """Return the errno of an NLMSG_ERROR or NLMSG_DONE with the kernel's text; None for no error."""
    (number,) = _ERRNO.unpack_from(reply.payload) if len(reply.payload) >= _ERRNO.size else (0,)
    if number == 0:
        return None
    # After the errno comes the header of the request, without its payload (NETLINK_CAP_ACK).
    start = _ERRNO.size + (_HEADER.size if reply.kind == _NLMSG_ERROR else 0)
    said = _said(reply.payload[start:]) if reply.flags & _NLM_F_ACK_TLVS else ""
    # Linux before 6.6 refuses an IPv6 address without a text. A missing right is EPERM.
    is_ipv6_off = message.kind == RTM_NEWADDR and number == -errno.EACCES
    return KernelError(message.doing, -number, said, IPV6_REMEDY if is_ipv6_off and not said else "")


def _said(attributes: bytes) -> str:
    place = 0
    while place + _ATTRIBUTE.size <= len(attributes):
        length, kind = _ATTRIBUTE.unpack_from(attributes, place)
        if kind & _NLA_TYPE_MASK == _NLMSGERR_ATTR_MSG:
            return attributes[place + _ATTRIBUTE.size : place + length].rstrip(b"\0").decode(errors="replace")
        place += max((length + 3) & ~3, _ATTRIBUTE.size)
    return ""


def _encode(message: Message, flags: int, number: int) -> bytes:
    if message.body:
        length = _HEADER.size + len(message.body)
        return _HEADER.pack(length, message.kind, flags | message.flags, number, 0) + message.body
    # Most calls send no such message.
    from cni.kernel import message_classes

    header = {"type": message.kind, "flags": flags | message.flags, "sequence_number": number, "pid": 0}
    return message_classes.encode(header, message.fields, message.attrs)
