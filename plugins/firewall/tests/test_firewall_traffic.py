"""Real packets: what is admitted on a host that drops forwarded packets, and what isolation keeps apart."""

from __future__ import annotations

from functools import partial
from itertools import compress
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.silence import Way, exchange_echoes, list_answered
from tests.interop.streams import Echo, Stream
from tests.netns.chained_networks import BACKENDS, ChainedNetwork, drop_forwarded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.testing import Host, Sandbox
    from cni.testing.wired import Container

Network = partial(ChainedNetwork, "firewall")
pytestmark = pytest.mark.modes("warm")

PORT = 81
ALL = {"v4", "v6"}
NONE: set[str] = set()


def reached(source: Container, target: Container) -> set[str]:
    """Return the families by which one container connects to another."""
    addresses = {"v4": target.address, "v6": target.address6}
    return _reached(source.sandbox, target.sandbox, addresses, gateways(source), gateways(target))


def reached_outside(source: Container, host: Host) -> set[str]:
    """Return the families by which a container connects to a peer outside, which needs no route back."""
    outside = host.outside
    addresses = {"v4": outside.address, "v6": outside.address6}
    return _reached(
        source.sandbox,
        outside.sandbox,
        addresses,
        gateways(source),
        ends(host),
    )


def reached_from_outside(target: Container, host: Host) -> set[str]:
    outside = host.outside
    addresses = {"v4": target.address, "v6": target.address6}
    return _reached(
        outside.sandbox,
        target.sandbox,
        addresses,
        ends(host),
        gateways(target),
    )


def ends(host: Host) -> Sequence[str]:
    """Return the host's addresses on the network of the peer outside."""
    return [host.outside.host_address, host.outside.host_address6]


def gateways(container: Container) -> Sequence[str]:
    return [each["gateway"] for each in container.prev_result["ips"]]


def _reached(
    source: Sandbox, target: Sandbox, addresses: dict[str, str], vias: Sequence[str], back: Sequence[str]
) -> set[str]:
    for via in back:
        target.call(exchange_echoes, via)
    ways = [Way(address, PORT, via) for address, via in zip(addresses.values(), vias, strict=True)]
    with target.serve(PORT):
        return set(compress(addresses, source.call(list_answered, ways)))


def route_back(host: Host, *networks: ChainedNetwork) -> None:
    """Let the peer outside know the way to containers."""
    outside = host.outside
    for each in networks:
        outside.sandbox.run(["ip", "route", "add", str(each.net.subnet), "via", outside.host_address])
        outside.sandbox.run(["ip", "route", "add", str(each.net.subnet6), "via", outside.host_address6])


@pytest.mark.parametrize(
    ("backend", "dropping"), [("iptables", "iptables"), ("nftables", "iptables"), ("nftables", "nftables")]
)
def test_admitted_addresses_get_through_a_host_that_drops(host: Host, backend: str, dropping: str) -> None:
    drop_forwarded(host, dropping)
    network = Network(host, backend=backend)
    route_back(host, network)
    c1, c2 = network.container(1), network.container(2)
    assert reached_outside(c1, host) == NONE
    network.call("ADD", c1).must()
    assert reached_outside(c1, host) == ALL
    # Only what the container has asked for comes back.
    assert reached_from_outside(c1, host) == NONE
    assert reached_outside(c2, host) == NONE
    network.call("CHECK", c1).must()
    network.call("DEL", c1).must()
    assert reached_outside(c1, host) == NONE


def test_a_policy_that_drops_after_add_is_found_and_repaired(host: Host) -> None:
    network = Network(host, backend="nftables")
    route_back(host, network)
    c1 = network.attach(1)
    drop_forwarded(host, "nftables")
    answer = network.call("CHECK", c1)
    assert answer.code == 104
    assert "inet filter forward drops admitted packets" in answer.msg
    assert reached_outside(c1, host) == NONE
    assert network.call("PYCNI_REPAIR", c1).must()["repaired"] != []
    network.call("CHECK", c1).must()
    assert reached_outside(c1, host) == ALL


def isolated_keys(backend: str) -> dict[str, Any]:
    return {"backend": backend, "isolate": True}


@pytest.mark.parametrize("backend", BACKENDS)
def test_isolated_networks_do_not_reach_each_other(host: Host, backend: str) -> None:
    first, second = (Network(host, number, **isolated_keys(backend)) for number in (1, 2))
    free = Network(host, 3, backend=backend)
    route_back(host, first, second, free)
    a, a2, b, c = first.attach(1), first.attach(2), second.attach(1), free.attach(1)
    assert (reached(a, b), reached(b, a)) == (NONE, NONE)
    assert (reached(a, a2), reached_outside(a, host)) == (ALL, ALL)
    assert (reached(a, c), reached(c, a)) == (ALL, ALL)
    first.call("DEL", a).must()
    assert reached(a2, b) == NONE
    first.call("DEL", a2).must()
    # The policy goes with the last container.
    assert reached(b, a2) == ALL


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("order", ["strict first", "strict last"])
def test_a_strict_network_reaches_no_other_and_is_reached_by_none(
    host: Host, backend: str, order: str
) -> None:
    strict = Network(host, 1, backend=backend, isolate="strict")
    free = Network(host, 2, backend=backend)
    route_back(host, strict, free)
    networks = [strict, free] if order == "strict first" else [free, strict]
    made = {network.net.name: network.attach(1) for network in networks}
    s, f = made["net1"], made["net2"]
    assert (reached(s, f), reached(f, s)) == (NONE, NONE)
    assert (reached_outside(s, host), reached_outside(f, host)) == (ALL, ALL)
    assert reached(strict.attach(2), s) == ALL


def set_bridge_calls(host: Host, *, on: bool) -> bool:
    """Let packets that stay on a bridge pass the rules of iptables, or not. Return whether they do."""
    script = f"cd /proc/sys/net/bridge && for key in bridge-nf-call-*tables; do echo {int(on)} > $key; done"
    return host.place.run(["sh", "-c", script], check=False).returncode == 0 and on


@pytest.mark.parametrize("calls", [True, False], ids=["br_netfilter", "no br_netfilter"])
@pytest.mark.parametrize("policy", ["same-bridge", "isolated"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_ingress_policies(host: Host, backend: str, policy: str, calls: bool) -> None:  # noqa: FBT001 - parameter
    calls = set_bridge_calls(host, on=calls)
    keys = {"backend": backend, "ingressPolicy": policy}
    first, second = (Network(host, number, **keys) for number in (1, 2))
    route_back(host, first, second)
    a, a2, b = first.attach(1), first.attach(2), second.attach(1)
    assert (reached(a, b), reached(b, a), reached_outside(a, host)) == (NONE, NONE, ALL)
    # iptables sees what stays on a bridge only with br_netfilter.
    assert reached(a, a2) == (NONE if policy == "isolated" and (backend == "nftables" or calls) else ALL)


@pytest.mark.parametrize("first", ["target", "source"])
def test_allow_opens_one_way(host: Host, first: str) -> None:
    web = Network(host, 1, **isolated_keys("nftables"))
    db = Network(host, 2, **isolated_keys("nftables"), allow=["net1"])
    other = Network(host, 3, **isolated_keys("nftables"))
    if first == "target":
        d, w = db.attach(1), web.attach(1)
    else:
        w, d = web.attach(1), db.attach(1)
    o = other.attach(1)
    assert (reached(w, d), reached(d, w)) == (ALL, NONE)
    assert (reached(o, d), reached(d, o), reached(w, o)) == (NONE, NONE, NONE)
    db.call("CHECK", d).must()
    web.call("CHECK", w).must()
    leaving, left = ((db, d), (web, w)) if first == "target" else ((web, w), (db, d))
    leaving[0].call("DEL", leaving[1]).must()
    shown = host.run(["nft", "list", "set", "inet", "pycni_firewall", "allowed"])
    assert "elements" not in shown
    leaving[0].call("ADD", leaving[1]).must()
    assert (reached(w, d), reached(d, w)) == (ALL, NONE)
    left[0].call("DEL", left[1]).must()
    assert "elements" not in host.run(["nft", "list", "set", "inet", "pycni_firewall", "allowed"])


@pytest.mark.parametrize("calls", [True, False], ids=["br_netfilter", "no br_netfilter"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_without_icc_neighbours_do_not_reach_each_other(host: Host, backend: str, calls: bool) -> None:  # noqa: FBT001 - parameter
    set_bridge_calls(host, on=calls)
    network = Network(host, 1, backend=backend, icc=False)
    route_back(host, network)
    a, b = network.attach(1), network.attach(2)
    assert (reached(a, b), reached(b, a), reached_outside(a, host)) == (NONE, NONE, ALL)
    # By way of the host, as a container with CAP_NET_RAW can send it.
    for each, other in ((a, b), (b, a)):
        each.sandbox.run(["ip", "route", "add", other.address, "via", network.net.gateway])
        each.sandbox.run(["ip", "-6", "route", "add", other.address6, "via", network.net.gateway6])
    assert (reached(a, b), reached(b, a)) == (NONE, NONE)
    network.call("CHECK", a).must()
    for each in (a, b):
        network.call("DEL", each).must()
    assert (reached(a, b), reached(b, a)) == (ALL, ALL)


def test_an_internal_network_reaches_nothing_but_itself_and_the_host(host: Host) -> None:
    inner, free = Network(host, 1, backend="nftables", internal=True), Network(host, 2, backend="nftables")
    route_back(host, inner, free)
    a, b, c = inner.attach(1), inner.attach(2), free.attach(1)
    assert (reached(a, b), reached_outside(a, host), reached_from_outside(a, host)) == (ALL, NONE, NONE)
    assert (reached(a, c), reached(c, a)) == (NONE, NONE)
    with a.sandbox.serve(PORT):
        assert host.reaches(a.address, PORT, timeout_s=10)


def test_a_published_port_of_an_isolated_network_is_reached(host: Host) -> None:
    first, second = (Network(host, number, **isolated_keys("nftables")) for number in (1, 2))
    a, b = first.attach(1), second.attach(1)
    host.run(
        ["nft", "-f", "-"],
        "add table ip ports\n"
        "add chain ip ports pre { type nat hook prerouting priority -100; }\n"
        f"add rule ip ports pre tcp dport 8080 dnat to {b.address}:{PORT}\n",
    )
    with b.sandbox.serve(PORT):
        assert a.sandbox.reaches(host.outside.host_address, 8080, timeout_s=10)
    assert reached(a, b) == NONE


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_open_connection_goes_on(host: Host, backend: str) -> None:
    """An ADD of another container, a repair and a DEL of another one do not cut a connection."""
    drop_forwarded(host, backend)
    network = Network(host, backend=backend, isolate=True)
    route_back(host, network)
    c1 = network.attach(1)
    outside = host.outside
    with Echo(outside.sandbox.place, 90), Stream("out", c1.sandbox.place, outside.address, 90) as stream:
        c2 = network.attach(2)
        stream.must_flow()
        network.call("PYCNI_REPAIR", c1).must()
        network.call("DEL", c2).must()
        stream.must_flow()
        stream.end()
