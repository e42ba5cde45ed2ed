"""A process in the container's namespace cannot answer in place of the kernel."""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni.kernel import bridge, link, link_removal, netns, rtnetlink, veth
from cni.kernel.nfnetlink import Message, Nfnetlink
from cni.kernel.rtnetlink import RTM_DELLINK, RTM_NEWLINK, RTMGRP_LINK, Netlink
from cni.testing.place import fork
from cni.testing.zygote import Zygote
from tests.netns.security_host import Chain, make_host

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cni.testing import Host, Sandbox

ROUTE, NETFILTER = 0, 12
MAC, HOST_MAC = "02:00:00:00:00:05", "02:00:00:00:00:06"
LIE = "02:de:ad:be:ef:00"
# More than the requests of any one socket in one call.
GUESSES = 80
ROUNDS = 20
# Two rounds meet all that can be forged; chance decides only when it arrives.
LIVES = 5 if os.environ.get("PYCNI_FAULTS") == "all" else 2
NFT_TABLE = 10 << 8


def header(length: int, kind: int, number: int, port: int) -> bytes:
    return struct.pack("=IHHII", 16 + length, kind, 0, number, port)


def link_message(kind: int, number: int, port: int, index: int, name: bytes = b"eth0") -> bytes:
    attrs = struct.pack("=HH8s", 12, 3, name) + struct.pack("=HH6sxx", 10, 1, bytes.fromhex("02deadbeef00"))
    body = struct.pack("=BxHiII", 0, 1, index, 0x11043, 0) + attrs
    return header(len(body), kind, number, port) + body


def ack(number: int, port: int) -> bytes:
    body = struct.pack("=i", 0) + header(0, RTM_NEWLINK, number, port)
    return header(len(body), 2, number, port) + body


def forged(number: int, port: int) -> bytes:
    """Return a link and an acknowledgement, as the kernel would send them for one request."""
    return link_message(RTM_NEWLINK, number, port, 4242) + ack(number, port)


def list_ports(protocol: int) -> list[int]:
    """Return the port IDs in this network namespace, as any process in it can see them."""
    lines = Path("/proc/thread-self/net/netlink").read_text().splitlines()[1:]
    found = [line.split()[1:3] for line in lines]
    return [int(port) for family, port in found if int(family) == protocol and port != "0"]


def flood() -> None:
    """Forge responses to every rtnetlink socket of this namespace, and news of links, without end."""
    sender = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, ROUTE)
    sender.bind((0, 0))
    own = sender.getsockname()[0]
    guesses = range(1, GUESSES)
    while True:
        for port in list_ports(ROUTE):
            for number in guesses if port != own else ():
                try:
                    sender.sendto(forged(number, port), socket.MSG_DONTWAIT, (port, 0))
                except OSError:
                    break
        for index in range(2, 10):
            sender.sendto(link_message(RTM_DELLINK, 0, 0, index), socket.MSG_DONTWAIT, (0, RTMGRP_LINK))


@contextmanager
def flooded(sandbox: Sandbox) -> Iterator[None]:
    """Run `flood` in a container meanwhile."""
    child = fork()
    if child == 0:
        try:
            sandbox.place.enter()
            flood()
        finally:
            os._exit(1)
    try:
        yield
    finally:
        is_running = os.waitpid(child, os.WNOHANG) == (0, 0)
        if is_running:
            os.kill(child, 9)
            os.waitpid(child, 0)
    assert is_running


def try_send(protocol: int, data: bytes, port: int) -> int:
    """Send from another socket; return the errno of the refusal, 0 if the message was queued."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as sender:
        sender.bind((0, 0))
        try:
            sender.sendto(data, (port, 0))
        except OSError as error:
            return error.errno or -1
    return 0


def macs() -> dict[str, str]:
    """Return the MAC addresses by name. The flood fills the buffer of the program `ip`, which then hangs."""
    with Netlink() as nl:
        return {each.name: each.mac for each in link.list_links(nl)}


def port_of(protocol: int, before: list[int]) -> int:
    [port] = set(list_ports(protocol)) - set(before)
    return port


def test_a_forged_link_is_not_believed(host: Host) -> None:
    sandbox = host.sandbox("c1")

    def run() -> list[int]:
        before = list_ports(ROUTE)
        with Netlink() as nl:
            port = port_of(ROUTE, before)
            sent = [try_send(ROUTE, forged(number, port), port) for number in range(1, GUESSES)]
            assert link.find(nl, "eth0") is None
            assert link.get(nl, "lo").index == 1
            assert [each.name for each in link.list_links(nl)] == ["lo"]
        return sent

    assert set(sandbox.call(run)) == {errno.ECONNREFUSED}


def test_a_forged_answer_of_the_firewall_is_not_believed(host: Host) -> None:
    """Nor of connection tracking, which uses the same socket."""

    def run() -> list[int]:
        before = list_ports(NETFILTER)
        nl = Nfnetlink()
        port = port_of(NETFILTER, before)
        table = struct.pack(">BBH", 2, 0, 0) + struct.pack("=HH4s", 8, 1, b"lie\0")
        sent = []
        for number in range(1, GUESSES):
            answer = header(len(table), NFT_TABLE, number, port) + table + ack(number, port)
            sent.append(try_send(NETFILTER, answer, port))
        name = struct.pack("=HH4s", 8, 1, b"lie\0")
        assert nl.find(Message("look up a table", NFT_TABLE | 1, 2, name)) is None
        nl.renew()
        assert nl.find(Message("look up a table", NFT_TABLE | 1, 2, name)) is None
        return sent

    assert set(host.sandbox("c1").call(run)) == {errno.ECONNREFUSED}


def test_a_forged_removal_of_a_link_is_not_believed(host: Host) -> None:
    """A process may send to the group that the kernel announces removals to."""

    def run() -> None:
        with Netlink(groups=RTMGRP_LINK) as listener:
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, ROUTE) as sender:
                sender.sendto(link_message(RTM_DELLINK, 0, 0, 2), (0, RTMGRP_LINK))
            assert listener.heard(1) == []
            with Netlink() as nl:
                assert bridge.create(nl, "br0", MAC)
            kinds = [kind for kind, _ in listener.heard(1)]
            assert kinds == [RTM_NEWLINK]

    host.sandbox("c1").call(run)


def test_a_removal_amid_forged_ones_is_one(host: Host) -> None:
    sandbox = host.sandbox("c1")

    def run() -> None:
        with netns.open_netns(sandbox.path) as ns, Netlink() as nl, Netlink(ns) as inside:
            for _ in range(ROUNDS):
                assert veth.create(nl, veth.VethSpec("veth0", HOST_MAC, "eth0", MAC, ns))
                index = link.get(inside, "eth0").index
                assert link_removal.remove_in(ns, "eth0", index, early=True)
                assert [each.name for each in link.list_links(inside)] == ["lo"]

    with flooded(sandbox):
        host.call(run)


@pytest.mark.parametrize("warm", ["off", "on"])
def test_a_container_that_floods_the_worker_is_attached_and_detached(served_bindir: Path, warm: str) -> None:
    """It forges responses to all sockets in its namespace before, during and after each call."""
    with ExitStack() as stack:
        zygote = stack.enter_context(Zygote(served_bindir)) if warm == "off" else None
        host = stack.enter_context(make_host(served_bindir, zygote))
        sandbox, chain, env = host.sandbox("c1"), Chain(host), {"PYCNI_WARM": warm}
        # The bridge, the chains and the pool's folder stay after the first DEL.
        chain.add(sandbox, env=env).must()
        chain.delete(sandbox, env=env)
        before = host.snapshot()
        with flooded(sandbox):
            for _ in range(LIVES):
                result = chain.add(sandbox, env=env).must()
                [ours] = [each for each in result["interfaces"] if each["name"] == "eth0"]
                assert sandbox.call(macs)["eth0"] == ours["mac"] != LIE
                chain.check(sandbox, result, env=env)
                for answer in chain.delete(sandbox, env=env):
                    answer.must()
                assert list(sandbox.call(macs)) == ["lo"]
        assert before.differences(host.snapshot()) == []


class Numbered(Netlink):
    """A socket that knows the number of its last request."""

    number = 0

    def _send(self, messages: Sequence[rtnetlink.Message], flags: int) -> int:
        self.number = super()._send(messages, flags)
        return self.number


class NumberedNetfilter(Nfnetlink):
    """The same for nfnetlink."""

    number = 0

    def _send(self, data: bytes, doing: str) -> None:
        self.number = struct.unpack_from("=IHHII", data)[3]
        super()._send(data, doing)


def test_sequence_numbers_cannot_be_guessed(host: Host) -> None:
    def run() -> list[int]:
        numbers = []
        for _ in range(4):
            with Numbered() as nl:
                link.get(nl, "lo")
                numbers.append(nl.number)
            nfnl = NumberedNetfilter()
            for _ in range(2):
                nfnl.dump(Message("list tables", NFT_TABLE | 1, 2))
                numbers.append(nfnl.number)
                nfnl.renew()
            nfnl.close()
        return numbers

    numbers = sorted(host.call(run))
    assert numbers[0] > GUESSES
    assert all(after - before > GUESSES for before, after in pairwise(numbers))
