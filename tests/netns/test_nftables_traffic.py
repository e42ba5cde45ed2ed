"""Real connections through published ports and masquerading of the nftables backend, both families."""

from __future__ import annotations

from contextlib import ExitStack
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING, NamedTuple

import pytest

from cni.firewall.intents import FORWARD, MASQUERADE, Masquerade, Owner, PortForward, PortMapping
from cni.firewall.nftables.backend import Nftables
from cni.kernel import child
from cni.undo import Undo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.testing import Host, Outside, Sandbox

V4, V6 = "10.22.0.{}", "fd00:22::{}"
GATEWAY = {4: V4.format(1), 6: V6.format(1)}
WEB = PortMapping("tcp", 8080, 80)


class Town(NamedTuple):
    """Two containers on one bridge and a peer outside; .2 serves, .3 is its neighbour."""

    host: Host
    server: Sandbox
    neighbour: Sandbox
    outside: Outside


@pytest.fixture
def town(host: Host) -> Iterator[Town]:
    outside = host.outside
    host.run(["ip", "link", "add", "br0", "type", "bridge"])
    host.run(["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])
    # Without a link-local address, which takes the kernel seconds to check, br0 looks for no neighbours.
    host.run(["sysctl", "-qw", "net.ipv4.conf.br0.route_localnet=1", "net.ipv6.conf.br0.accept_dad=0"])
    host.run(["ip", "link", "set", "br0", "up"])
    _address(host, "br0", 1)
    server, neighbour = (_container(host, name, number) for name, number in (("c2", 2), ("c3", 3)))
    with ExitStack() as servers:
        for port in (80, 81):
            for protocol in ("tcp", "udp"):
                servers.enter_context(server.serve(port, protocol))
        for protocol in ("tcp", "udp"):
            servers.enter_context(outside.sandbox.serve(7, protocol))
        yield Town(host, server, neighbour, outside)


def _container(host: Host, name: str, number: int) -> Sandbox:
    sandbox = host.sandbox(name)
    host.run(["ip", "link", "add", f"v{name}", "type", "veth", "peer", "name", "eth0", "netns", name])
    host.run(["ip", "link", "set", f"v{name}", "master", "br0", "up"])
    host.run(["bridge", "link", "set", "dev", f"v{name}", "hairpin", "on"])
    for link in ("lo", "eth0"):
        sandbox.run(["ip", "link", "set", link, "up"])
    _address(sandbox, "eth0", number)
    for gateway in GATEWAY.values():
        sandbox.run(["ip", "route", "add", "default", "via", gateway])
    return sandbox


def _address(inside: Host | Sandbox, link: str, number: int) -> None:
    inside.run(["ip", "addr", "add", f"{V4.format(number)}/16", "dev", link])
    inside.run(["ip", "addr", "add", f"{V6.format(number)}/64", "dev", link, "nodad"])


def _owner(name: str = "c2") -> Owner:
    return Owner("net1", name, "eth0")


def _targets(number: int = 2) -> tuple[object, ...]:
    return (ip_interface(f"{V4.format(number)}/16"), ip_interface(f"{V6.format(number)}/64"))


def _publish(host: Host, *mappings: PortMapping, **options: object) -> None:
    intent = PortForward(_owner(), mappings, _targets(), **options)  # type: ignore[arg-type] # by name
    _apply(host, lambda undo: Nftables().apply(intent, undo))


def _masquerade(host: Host) -> None:
    intent = Masquerade(_owner(), _targets())  # type: ignore[arg-type] # IpInterface, widened
    _apply(host, lambda undo: Nftables().apply(intent, undo))


def _apply(host: Host, step: object) -> None:
    def inside() -> None:
        with Undo() as undo:
            step(undo)  # type: ignore[operator] # any of the lambdas above

    host.call(inside)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_client_outside_reaches_the_container_and_is_seen_as_itself(town: Town, protocol: str) -> None:
    _publish(town.host, PortMapping(protocol, 8080, 80))
    client, outside = town.outside.sandbox, town.outside
    assert client.dial(outside.host_address, 8080, protocol).address == outside.address
    assert client.dial(outside.host_address6, 8080, protocol).address == outside.address6


@pytest.mark.parametrize("version", [4, 6])
def test_the_container_reaches_itself_through_the_host(town: Town, version: int) -> None:
    _publish(town.host, WEB)
    host_address = {4: town.outside.host_address, 6: town.outside.host_address6}[version]
    for address in (host_address, GATEWAY[version]):
        assert town.server.dial(address, 8080).address == GATEWAY[version]


@pytest.mark.parametrize("version", [4, 6])
def test_a_neighbour_reaches_the_container_through_the_host(town: Town, version: int) -> None:
    _publish(town.host, WEB)
    host_address = {4: town.outside.host_address, 6: town.outside.host_address6}[version]
    assert town.neighbour.dial(host_address, 8080).address == GATEWAY[version]


def test_a_neighbour_that_dials_the_container_itself_is_seen_as_itself(town: Town) -> None:
    _publish(town.host, WEB)
    _masquerade(town.host)
    assert town.neighbour.dial(V4.format(2), 80).address == V4.format(3)
    assert town.neighbour.dial(V6.format(2), 80).address == V6.format(3)


def test_the_host_reaches_the_container_by_localhost_and_by_its_addresses(town: Town) -> None:
    _publish(town.host, WEB)
    assert town.host.dial("127.0.0.1", 8080).address == GATEWAY[4]
    assert town.host.dial("127.0.0.1", 8080, source="127.5.5.5").address == GATEWAY[4]
    assert town.host.dial(town.outside.host_address, 8080).address == town.outside.host_address
    assert town.host.dial(town.outside.host_address6, 8080).address == town.outside.host_address6


def test_without_snat_the_neighbour_is_not_masqueraded(town: Town) -> None:
    _publish(town.host, WEB, snat=False)
    assert town.outside.sandbox.dial(town.outside.host_address, 8080).address == town.outside.address
    # Last: the host asks for the container's MAC address in the name of 127.0.0.1, and is not answered.
    assert not town.host.reaches("127.0.0.1", 8080)


def test_masq_all_hides_clients_outside_too(town: Town) -> None:
    _publish(town.host, WEB, masq_all=True)
    client, outside = town.outside.sandbox, town.outside
    assert client.dial(outside.host_address, 8080).address == GATEWAY[4]
    assert client.dial(outside.host_address6, 8080).address == GATEWAY[6]
    assert town.host.dial("127.0.0.1", 8080).address == GATEWAY[4]


def test_a_host_ip_publishes_on_that_address_only(town: Town) -> None:
    outside = town.outside
    _publish(
        town.host,
        PortMapping("tcp", 8080, 80, ip_address(outside.host_address)),
        PortMapping("tcp", 9090, 81, ip_address(outside.host_address6)),
    )
    assert outside.sandbox.dial(outside.host_address, 8080)
    assert not town.host.reaches("127.0.0.1", 8080)
    assert not outside.sandbox.reaches(outside.host_address6, 8080)
    assert outside.sandbox.dial(outside.host_address6, 9090)


def test_a_host_ip_has_precedence_over_all_addresses(town: Town) -> None:
    outside = town.outside
    _publish(
        town.host,
        PortMapping("tcp", 8080, 80, ip_address(outside.host_address)),
        PortMapping("tcp", 8080, 99),
    )
    assert outside.sandbox.dial(outside.host_address, 8080)
    assert not outside.sandbox.reaches(outside.host_address6, 8080)


def test_an_unspecified_host_ip_means_all_addresses_of_its_family(town: Town) -> None:
    _publish(town.host, PortMapping("tcp", 8080, 80, ip_address("0.0.0.0")))  # noqa: S104 - what is tested
    assert town.host.dial("127.0.0.1", 8080)
    assert town.outside.sandbox.dial(town.outside.host_address, 8080)
    assert not town.outside.sandbox.reaches(town.outside.host_address6, 8080)


def test_conditions_limit_who_reaches_the_port(town: Town) -> None:
    outside = town.outside
    outside.sandbox.run(["ip", "addr", "add", "192.0.2.9/24", "dev", "eth0"])
    _publish(town.host, WEB, conditions_v4=("ip", "saddr", "!=", outside.address))
    assert not outside.sandbox.reaches(outside.host_address, 8080)
    assert outside.sandbox.dial(outside.host_address, 8080, source="192.0.2.9").address == "192.0.2.9"
    assert outside.sandbox.dial(outside.host_address6, 8080)
    assert town.neighbour.dial(outside.host_address, 8080).address == GATEWAY[4]


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_masquerading_hides_the_container_outside_and_only_there(town: Town, protocol: str) -> None:
    _masquerade(town.host)
    outside = town.outside
    assert town.server.dial(outside.address, 7, protocol).address == outside.host_address
    assert town.server.dial(outside.address6, 7, protocol).address == outside.host_address6
    # Its neighbour has no masquerading, and the peer outside knows no way back.
    assert not town.neighbour.reaches(outside.address, 7, protocol)


def test_nothing_is_reached_after_removal(town: Town) -> None:
    _publish(town.host, WEB)
    _masquerade(town.host)
    assert town.outside.sandbox.dial(town.outside.host_address, 8080)
    town.host.call(Nftables().remove, _owner(), FORWARD)
    town.host.call(Nftables().remove, _owner(), MASQUERADE)
    assert not town.outside.sandbox.reaches(town.outside.host_address, 8080)
    assert not town.server.reaches(town.outside.address, 7)


def test_iptables_rules_beside_ours_do_no_harm(town: Town) -> None:
    if child.find("iptables-nft") is None:
        pytest.skip("iptables-nft is not installed")
    for rule in ("PREROUTING -p tcp --dport 1 -j ACCEPT", "POSTROUTING -s 172.16.0.0/12 -j MASQUERADE"):
        town.host.run(["iptables-nft", "-t", "nat", "-A", *rule.split()])
    _publish(town.host, WEB)
    assert town.outside.sandbox.dial(town.outside.host_address, 8080).address == town.outside.address
    assert town.neighbour.dial(town.outside.host_address, 8080).address == GATEWAY[4]
