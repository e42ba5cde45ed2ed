"""A container attacks the server: addresses of others, malformed packets, floods, idle connections."""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import dns.message
import pytest

from cni.dns.client import HELPER
from tests.names_world import NO, Foreign, Network, Question, ask, ask_all, is_silent, servers
from tests.support.patience import wait_until

if TYPE_CHECKING:
    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")

CASES = int(os.environ.get("PYCNI_FUZZ", "300"))
_FLOOD = 400
_FEW_FILES = 1024


def test_a_malformed_packet_does_no_harm(host: Host) -> None:
    net = Network(host, upstreams=[])
    web = net.attach("web")
    before = servers(host)
    for server in (net.gateway, net.gateway6):
        web.sandbox.call(_send_malformed, server, CASES)
    assert servers(host) == before
    assert ask(web.sandbox, "web") == ("NOERROR", [web.addresses[0]])
    assert ask(web.sandbox, "web", tcp=True) == ("NOERROR", [web.addresses[0]])


def _send_malformed(server: str, cases: int) -> None:
    chance = random.Random(2)  # noqa: S311 - chance for tests
    whole = [dns.message.make_query(name, "A", use_edns=0).to_wire() for name in ("web", "a.b.example.com")]
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.connect((server, 53))
        client.settimeout(0)
        for _ in range(cases):
            wire = bytearray(chance.choice(whole))
            for _ in range(chance.randrange(1, 8)):
                at = chance.randrange(len(wire) - 1)
                wire[at : at + chance.randrange(3)] = chance.randbytes(chance.randrange(4))
            client.send(wire[: chance.randrange(1, len(wire) + 20)] or b"\0")
            with suppress(OSError):
                client.recv(5000)
    for length in (0, 1, 11, 0xFFFF):
        with socket.create_connection((server, 53), 5) as stream:
            stream.sendall(struct.pack("!H", length) + chance.randbytes(min(length, 500)))


def test_an_address_of_another_shows_nothing(host: Host) -> None:
    first, second = Network(host, 1), Network(host, 2)
    attacker, victim = first.attach("attacker"), second.attach("victim")
    # It has the address of a container of another network, and that of the host on its own.
    for address in (f"{victim.addresses[0]}/32", f"{victim.addresses[1]}/128"):
        attacker.sandbox.run(["ip", "addr", "add", address, "dev", "lo"])
    attacker.sandbox.run(["ip", "addr", "add", "fd01::1/128", "dev", "lo"])
    for source, server in zip(victim.addresses, (first.gateway, second.gateway6), strict=True):
        assert attacker.sandbox.call(_ask_from, source, server, "victim") == b""
    # The answer goes to the host: the packet seems to be its own.
    attacker.sandbox.run(["ip", "-6", "rule", "del", "pref", "0"])
    attacker.sandbox.run(["ip", "-6", "rule", "add", "pref", "40000", "lookup", "local"])
    assert attacker.sandbox.call(_ask_from, "fd01::1", "fd01::1", "victim") == b""
    assert ask(attacker.sandbox, "victim") == NO
    assert ask(victim.sandbox, "victim", server="10.2.0.1") == ("NOERROR", [victim.addresses[0]])


def _ask_from(source: str, server: str, name: str) -> bytes:
    """Return the answer to a question that comes from an address; b"" for none."""
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.bind((source, 0))
        client.settimeout(0.5)
        try:
            client.sendto(dns.message.make_query(name, "A").to_wire(), (server, 53))
            return client.recv(1000)
        except OSError:
            return b""


def test_a_flood_of_unknown_names_leaves_others_their_answers(host: Host) -> None:
    outside = host.outside
    net = Network(host, upstreams=["192.0.2.99", outside.address])
    attacker, web = net.attach("attacker"), net.attach("web")
    [(_, helper)] = servers(host)
    # More names than may wait for other servers, which do not answer.
    attacker.sandbox.call(_flood, net.gateway, _FLOOD, ".example.com")
    attacker.sandbox.call(_flood, net.gateway, _FLOOD, ".net1.test")
    assert ask(web.sandbox, "web") == ("NOERROR", [web.addresses[0]])
    with Foreign(outside.sandbox, outside.address):
        assert ask(web.sandbox, "www.example.com")[0] == "NOERROR"
    assert [pid for _, pid in servers(host)] == [helper]


def _flood(server: str, count: int, suffix: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((server, 53))
        for number in range(count):
            client.send(dns.message.make_query(f"n{number}{suffix}", "A").to_wire())


def test_open_connections_leave_others_their_answers(host: Host) -> None:
    net = Network(host, upstreams=[])
    attacker, web = net.attach("attacker"), net.attach("web")
    answer = attacker.sandbox.call(_hold_connections, net.gateway, web.addresses[0])
    assert answer == 0
    assert ask(web.sandbox, "web", tcp=True) == ("NOERROR", [web.addresses[0]])


def _hold_connections(server: str, _other: str) -> int:
    """Open connections that send half a query, and ask by one more; return how many of the last are open."""
    streams = [socket.create_connection((server, 53), 30) for _ in range(40)]
    for each in streams:
        with suppress(OSError):
            each.sendall(b"\0")
    last = streams[-1]
    last.settimeout(30)
    # Those above the limit are closed at once.
    try:
        received = last.recv(10)
    except OSError:
        received = b""
    for each in streams:
        each.close()
    return len(received)


def test_another_user_and_a_container_do_not_reach_the_control_socket(host: Host) -> None:
    net = Network(host)
    web = net.attach("web")
    path = host.call(_path)
    # A process of root in another network namespace sees the socket. Its request changes nothing.
    host.run(["sh", "-c", "rm /run/pycni/dns/*/*"])
    assert web.sandbox.call(_request, path) == b""
    assert ask(web.sandbox, "web") == ("NOERROR", [web.addresses[0]])
    assert host.run(["stat", "-c", "%a", path, "/run/pycni/helpers"]).split() == ["600", "700"]


def _path() -> str:
    return HELPER.path


def _request(path: str) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(5)
        client.connect(path)
        try:
            client.send(b'{"build": "x", "take": true, "wait": true}')
            return client.recv(1000)
        except OSError:
            return b""


def test_the_server_listens_at_gateways_only(host: Host) -> None:
    net = Network(host)
    net.attach("web")
    outside = host.outside
    listed = host.run(["ss", "-Hlnut"]).split("\n")
    addresses = {line.split()[4] for line in listed if line}
    assert addresses == {"10.1.0.1:53", "[fd01::1]:53"}
    assert is_silent(host, "web", "127.0.0.53")
    assert is_silent(outside.sandbox, "web", outside.host_address)
    # From outside the gateway can be reached, where the host forwards: an unknown asker learns nothing.
    outside.sandbox.run(["ip", "route", "add", "10.1.0.0/24", "via", outside.host_address])
    assert ask_all(outside.sandbox, [Question("web"), Question("example.com")]) == [("REFUSED", [])] * 2


@pytest.mark.parametrize("is_hard", [False, True], ids=["may be raised", "is fixed"])
def test_queries_that_wait_leave_the_server_its_files(host: Host, *, is_hard: bool) -> None:
    # Each of three servers is asked within the four seconds that a query may wait.
    net = Network(host, upstreams=["192.0.2.97", "192.0.2.98", "192.0.2.99"])
    host.outside.sandbox.run(["ip", "address", "flush", "dev", "eth0"])
    attackers = [net.attach(f"attacker{number}") for number in range(4)]
    [(guard, helper)] = servers(host)
    host.call(_restart_with_few_files, guard, helper, is_hard=is_hard)
    wait_until(lambda: [pid for _, pid in servers(host)] not in ([], [helper]))

    def has_filled() -> bool:
        for attacker in attackers:
            attacker.sandbox.call(_flood, net.gateway, _FLOOD, ".example.com")
        return host.call(_count_files, servers(host)[0][1]) > _FEW_FILES / (2 if is_hard else 1)

    wait_until(has_filled)
    late = net.attach("late")
    assert ask(late.sandbox, "late") == ("NOERROR", [late.addresses[0]])
    assert ask(late.sandbox, "attacker1") == ("NOERROR", [attackers[1].addresses[0]])


def _restart_with_few_files(guard: int, helper: int, *, is_hard: bool) -> None:
    """Kill the helper. The guard's next one begins with the limit that most services have."""
    _, most = resource.prlimit(guard, resource.RLIMIT_NOFILE)
    resource.prlimit(guard, resource.RLIMIT_NOFILE, (_FEW_FILES, _FEW_FILES if is_hard else most))
    os.kill(helper, signal.SIGKILL)


def _count_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_a_record_that_cannot_be_read_once_is_read_again(host: Host) -> None:
    net = Network(host, upstreams=[])
    web = net.attach("web")
    [(_, helper)] = servers(host)
    # As for want of descriptors or memory: the helper that starts now finds nothing that it can read.
    [record] = host.run(["sh", "-c", "ls /run/pycni/dns/*/*"]).split()
    host.run(["mv", record, "/run/aside"])
    host.run(["touch", record])
    host.run(["kill", "-9", str(helper)])
    late = net.attach("late")
    assert ask(late.sandbox, "web") == NO
    host.run(["mv", "/run/aside", record])
    net.detach(late)
    assert ask(web.sandbox, "web") == ("NOERROR", [web.addresses[0]])
