"""A container may have upstreams of its own: no other container asks them or sees their answers."""

from __future__ import annotations

import json
import os
import signal
import socket
from typing import TYPE_CHECKING, Any

import dns.message
import pytest

from cni.errors import Code
from tests.names_world import ELSEWHERE, NO, Foreign, Network, ask, records, servers
from tests.netns.run_world import RunWorld
from tests.support.patience import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")

FOUND = ("NOERROR", [ELSEWHERE])


def own(*addresses: str) -> dict[str, Any]:
    """Return the keys by which a runtime passes a container's servers; this is containerd's spelling."""
    return {"runtimeConfig": {"dns": {"Servers": list(addresses), "Searches": ["a.test"], "Options": []}}}


def test_each_container_asks_its_own_servers(host: Host) -> None:
    outside = host.outside
    net = Network(host, upstreams=[outside.address])
    plain, other = net.attach("plain"), net.prepare("other")
    keys = own(outside.address6)
    added = net.call("ADD", other, **keys).must()
    # The server of names stays the only one.
    assert added["dns"]["nameservers"] == net.call("ADD", plain).must()["dns"]["nameservers"]
    with (
        Foreign(outside.sandbox, outside.address) as first,
        Foreign(outside.sandbox, outside.address6, "/run/second.log") as second,
    ):
        # The same questions, one after the other: an answer that was kept would be seen.
        for asker in (plain, other, plain, other):
            assert ask(asker.sandbox, "one.example.com") == FOUND
        assert ask(other.sandbox, "one.example.com", tcp=True) == FOUND
        assert ask(host, "host.example.com") == FOUND
        assert ask(other.sandbox, "plain") == ("NOERROR", [plain.addresses[0]])
        assert ask(other.sandbox, "nobody.net1.test") == NO
        assert (len(first.asked), second.asked) == (3, ["one.example.com"] * 3)
        # The server that takes over knows them from the record.
        [(_, helper)] = servers(host)
        os.kill(helper, signal.SIGKILL)
        wait_until(lambda: [each for _, each in servers(host)] not in ([], [helper]))
        assert ask(other.sandbox, "two.example.com") == FOUND
        assert second.asked[3:] == ["two.example.com"]
        checked = other._replace(added=added)
        net.call("CHECK", checked, **keys).must()
        assert net.call("CHECK", checked, **own(outside.address)).code == Code.MISMATCH
        # Without them the container asks those of its network.
        net.detach(other)
        net.call("ADD", other).must()
        assert ask(other.sandbox, "three.example.com") == FOUND
        assert (first.asked[3:], second.asked[4:]) == (["three.example.com"], [])
    net.detach(other)
    assert [each["upstreams"] for each in records(host)] == [[]]


def test_an_internal_network_asks_nobody(host: Host) -> None:
    outside = host.outside
    net = Network(host, internal=True)
    web = net.prepare("web")
    net.call("ADD", web, **own(outside.address)).must()
    with Foreign(outside.sandbox, outside.address) as foreign:
        assert ask(web.sandbox, "example.com") == NO
        assert foreign.asked == []


def test_the_next_container_at_an_address_has_its_own_answers(host: Host) -> None:
    outside = host.outside
    net = Network(host, upstreams=[outside.address])
    net.bridge["ipam"]["ranges"] = [
        [{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.9"}]
    ]
    first = net.prepare("first")
    # No host has the address: the query waits for an answer.
    net.call("ADD", first, **own("192.0.2.99")).must()
    first.sandbox.call(send, "example.com", net.gateway)
    assert ask(first.sandbox, "first") == ("NOERROR", first.addresses)
    net.detach(first)
    host.plugin("bridge", "DEL", net.bridge, netns=first.sandbox, container_id="first").must()
    second = net.attach("second")
    assert second.addresses == first.addresses
    with Foreign(outside.sandbox, outside.address):
        assert ask(second.sandbox, "example.com") == FOUND


def send(name: str, server: str) -> None:
    """Ask, and wait for no answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.sendto(dns.message.make_query(name, "A", use_edns=0).to_wire(), (server, 53))


@pytest.mark.parametrize("text", ["name.test", "", "192.0.2.1/32"])
def test_what_is_no_address_is_refused(host: Host, text: str) -> None:
    net = Network(host)
    refused = net.call("ADD", net.prepare("web"), **own(text))
    assert (refused.code, f'"{text}" is no IP address' in refused.msg) == (Code.INVALID_CONFIG, True)
    assert records(host) == []


@pytest.fixture
def world(host: Host, tmp_path: Path) -> Iterator[RunWorld]:
    """Yield a host with "shop", whose list is pycni's, and "old", whose list knows aliases only."""
    world = RunWorld(host, tmp_path)
    world.ok("network", "create", "--dns", host.outside.address, "shop")
    listed = json.loads(host.run(["cat", "/etc/cni/net.d/pycni-shop.conflist"]))["plugins"]
    ipam = {"type": "host-local", "subnet": "10.7.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}
    names = {"type": "dnsname", "domainName": "old.test", "capabilities": {"aliases": True}}
    world.configure("old", {"type": "bridge", "bridge": "old0", "isGateway": True, "ipam": ipam}, names)
    assert [each["capabilities"] for each in listed if each["type"] == "dnsname"] == [
        {"aliases": True, "dns": True}
    ]
    yield world
    world.close()


def test_run_keeps_the_names_of_containers(world: RunWorld) -> None:
    outside = world.host.outside
    run = ("run", "--dns", outside.address6, "--dns-search", "a.test", "--name", "job")
    script = "cat /etc/resolv.conf; exec sleep 1000"
    web = world.started_until("--network", "shop", "--network", "old", "--name", "web")
    with (
        Foreign(outside.sandbox, outside.address) as first,
        Foreign(outside.sandbox, outside.address6, "/run/second.log") as second,
    ):
        for network, gateway in (("shop", "10.89.0.1"), ("old", "10.7.0.1")):
            job = world.started_until(*run[1:], "--network", network, script=script)
            assert world.ok("dns", "query", "web", "--as", "job") != ""
            assert world.ok("dns", "query", f"{network}.example.com", "--as", "job").split()[0] == ELSEWHERE
            [shown] = [each for each in world.attachments() if each["names"][:1] == ["job"]]
            assert shown["upstreams"] == [outside.address6]
            assert f"other names from: {outside.address6}" in world.ok("show", network)
            world.ok("check", network, "job")
            lines = world.end(job).stdout.splitlines()[1:]
            assert lines == [f"nameserver {gateway}", "search a.test"]
        # Each name is asked for in both families, and of no other server.
        assert (first.asked, set(second.asked)) == ([], {"shop.example.com", "old.example.com"})
        assert world.ok("dns", "query", "web.example.com", "--as", "web").split()[0] == ELSEWHERE
        assert set(first.asked) == {"web.example.com"}
    # A network without names leaves the server to the container.
    world.ok("network", "create", "--disable-dns", "bare")
    lines = world.ok(*run, "--network", "bare", "--", "cat", "/etc/resolv.conf").splitlines()[1:]
    assert lines == [f"nameserver {outside.address6}", "search a.test"]
    world.end(web)
    assert records(world.host) == []
