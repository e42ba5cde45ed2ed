"""A process of the host that listens on a port which ADD publishes: it is told, and nothing else is."""

from __future__ import annotations

import os
import re
import socket
from typing import TYPE_CHECKING, Any

import pytest

from cni.firewall.intents import PortMapping
from cni.hostports import listeners
from cni.testing.wired import Wired

if TYPE_CHECKING:
    from cni.testing import Host

WEB = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
DNS = {"hostPort": 5353, "containerPort": 53, "protocol": "udp"}
EVERY = "0.0.0.0"  # noqa: S104 - in a namespace of its own
ADDRESS, ADDRESS6 = "10.22.0.1", "fd00:22::1"


@pytest.fixture
def net(host: Host) -> Wired:
    return Wired(host)


def told(net: Wired, *mappings: dict[str, Any]) -> list[str]:
    """Return the warnings of an ADD. It succeeds and publishes the ports in spite of them."""
    conf = {"backend": "nftables", "runtimeConfig": {"portMappings": list(mappings)}}
    c1 = net.container(1)
    try:
        answer = net.call("portmap", "ADD", c1, conf)
        answer.must()
        net.call("portmap", "CHECK", c1, conf).must()
    finally:
        net.call("portmap", "DEL", c1, conf).must()
        # With the namespace it would go some time later.
        net.host.run(["ip", "link", "delete", c1.host_end])
        net.host.run(["ip", "netns", "delete", c1.sandbox.name])
    return answer.stderr.splitlines()


def note(where: str) -> str:
    return (
        rf"portmap: process [0-9]+ \(\S+\) listens on {re.escape(where)}, "
        rf'where container "c1" is reached now instead'
    )


@pytest.mark.parametrize(
    ("address", "mapping", "where"),
    [
        ("", WEB, "[::]:8080/tcp"),
        ("", DNS, "[::]:5353/udp"),
        (EVERY, WEB, f"{EVERY}:8080/tcp"),
        (EVERY, DNS, f"{EVERY}:5353/udp"),
        (ADDRESS, WEB, f"{ADDRESS}:8080/tcp"),
        (ADDRESS6, WEB, f"[{ADDRESS6}]:8080/tcp"),
        (ADDRESS6, DNS, f"[{ADDRESS6}]:5353/udp"),
        ("::", WEB, "[::]:8080/tcp"),
        (ADDRESS, WEB | {"hostIP": ADDRESS}, f"{ADDRESS}:8080/tcp"),
        (ADDRESS6, WEB | {"hostIP": ADDRESS6}, f"[{ADDRESS6}]:8080/tcp"),
        (EVERY, WEB | {"hostIP": ADDRESS}, f"{EVERY}:8080/tcp"),
        ("", WEB | {"hostIP": ADDRESS}, "[::]:8080/tcp"),
        (ADDRESS, WEB | {"hostIP": EVERY}, f"{ADDRESS}:8080/tcp"),
        (EVERY, WEB | {"hostIP": "192.0.2.77"}, f"{EVERY}:8080/tcp"),
        ("127.0.0.1", WEB, "127.0.0.1:8080/tcp"),
    ],
)
def test_the_listening_process_is_reported(
    net: Wired, address: str, mapping: dict[str, Any], where: str
) -> None:
    with net.host.serve(int(mapping["hostPort"]), str(mapping["protocol"]), address):
        lines = told(net, mapping)
    assert len(lines) == 1, lines
    assert re.fullmatch(note(where), lines[0]), lines
    assert told(net, mapping) == []


@pytest.mark.parametrize(
    ("address", "mapping"),
    [
        ("", WEB | {"protocol": "udp"}),
        ("", WEB | {"hostPort": 8081}),
        ("127.0.0.1", WEB | {"hostIP": ADDRESS}),
        (ADDRESS, WEB | {"hostIP": ADDRESS6}),
        ("::", WEB | {"hostIP": ADDRESS}),
        (EVERY, WEB | {"hostIP": ADDRESS6}),
        ("", WEB | {"protocol": "sctp"}),
    ],
)
def test_a_listener_at_another_address_is_not_reported(
    net: Wired, address: str, mapping: dict[str, Any]
) -> None:
    with net.host.serve(8080, "tcp", address):
        assert told(net, mapping) == []


def test_the_process_is_the_one_that_listens(net: Wired) -> None:
    server = ["python3", "-c", "import socket,time;s=socket.create_server(('', 8080));time.sleep(1200)"]
    process = net.host.place.popen(server)
    try:
        net.host.run(["sh", "-c", "until ss -Hltn sport = :8080 | grep -q .; do sleep 0.05; done"])
        # Another process, started before, has nothing to do with it.
        with net.host.serve(8081):
            (line,) = told(net, WEB)
    finally:
        process.kill()
        process.communicate()
    assert f"process {process.pid} (python3) listens on 0.0.0.0:8080/tcp" in line


def test_each_socket_is_told_once(net: Wired) -> None:
    with net.host.serve(8080), net.host.serve(5353, "udp", ADDRESS):
        lines = told(net, WEB, WEB | {"containerPort": 81, "hostIP": ADDRESS}, DNS)
    assert [line.split(" listens on ")[1].split(",")[0] for line in lines] == [
        "[::]:8080/tcp", f"{ADDRESS}:5353/udp"
    ]  # fmt: skip


def test_a_connection_from_such_a_port_is_no_listener(host: Host) -> None:
    """Nor is a socket that is bound and has a peer, or does not listen."""

    def run() -> list[listeners.Listener]:
        with (
            socket.create_server(("127.0.0.1", 1)) as server,
            socket.socket() as client,
            socket.socket() as idle,
        ):
            client.bind(("127.0.0.1", 8080))
            client.connect(server.getsockname())
            idle.bind(("127.0.0.1", 8081))
            talking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            talking.bind(("127.0.0.1", 8080))
            talking.connect(("127.0.0.1", 9))
            asked = [PortMapping(protocol, port, 80) for protocol in ("tcp", "udp") for port in (8080, 8081)]
            return listeners.find(asked, (4, 6))

    assert host.call(run) == []


def test_an_ipv4_address_of_a_socket_of_ipv6_is_one(host: Host) -> None:
    def run() -> tuple[list[str], list[str], int]:
        with socket.socket(socket.AF_INET6) as server:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            server.bind(("::ffff:127.0.0.1", 8080))
            server.listen()
            asked = [PortMapping("tcp", 8080, 80)]
            by_4, by_6 = ([str(each) for each in listeners.find(asked, [version])] for version in (4, 6))
            return by_4, by_6, os.getpid()

    by_4, by_6, pid = host.call(run)
    assert len(by_4) == 1
    assert by_4[0].startswith(f"process {pid} (")
    assert by_4[0].endswith(") listens on 127.0.0.1:8080/tcp")
    assert by_6 == []


def test_only_the_families_in_which_a_port_is_published_count(host: Host) -> None:
    def run() -> list[str]:
        with socket.create_server((EVERY, 8080)):
            asked = [PortMapping("tcp", 8080, 80)]
            return [str(each.address) for version in (6, 4) for each in listeners.find(asked, [version])]

    assert host.call(run) == [EVERY]
