"""Host ports that the Go plugins had published before ours came: seen, named, and freed with their rules."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import GO
from cni.testing.wired import Wired
from tests.netns.firewall_hosts import VARIANTS, equipped, plain
from tests.support import scene

if TYPE_CHECKING:
    from cni.testing import Answer, Host
    from cni.testing.wired import Container

pytestmark = [
    pytest.mark.modes("warm"),
    pytest.mark.interop,
    scene.needs_go,
]

WEB = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}


@pytest.fixture
def net(host: Host) -> Wired:
    return Wired(host)


def portmap(net: Wired, verb: str, container: Container, mapping: dict[str, Any], **options: Any) -> Answer:
    conf = {"runtimeConfig": {"portMappings": [mapping]}}
    return net.call(scene.PORTS, verb, container, conf | options.pop("conf", {}), **options)


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_port_that_go_has_published_is_taken_until_its_rules_are_gone(
    net: Wired, variant: str, backend: str
) -> None:
    c1, c2 = net.container(1), net.container(2)
    with equipped(net.host, plain(variant) | {"nft": "nft"}):
        portmap(net, "ADD", c1, WEB, bindir=GO).must()
        refused = portmap(net, "ADD", c2, WEB, conf={"backend": backend})
        assert refused.code == 103
        assert refused.msg == 'host port 8080/tcp is already published by container "c1"'
        portmap(net, "ADD", c2, WEB | {"hostPort": 8081}, conf={"backend": backend}).must()
        portmap(net, "DEL", c1, WEB, bindir=GO).must()
        portmap(net, "ADD", c2, WEB, conf={"backend": backend}).must()
        with c2.sandbox.serve(80):
            assert net.host.outside.sandbox.dial(net.host.outside.host_address, 8080)


def test_addresses_of_the_host_are_distinguished(net: Wired) -> None:
    c1, c2 = net.container(1), net.container(2)
    portmap(net, "ADD", c1, WEB | {"hostIP": "127.0.0.1"}, bindir=GO).must()
    assert portmap(net, "ADD", c2, WEB).code == 103
    portmap(net, "ADD", c2, WEB | {"hostIP": "127.0.0.2"}).must()


def test_our_del_of_a_container_of_go_frees_its_port(net: Wired) -> None:
    c1, c2 = net.container(1), net.container(2)
    portmap(net, "ADD", c1, WEB, bindir=GO).must()
    assert portmap(net, "ADD", c2, WEB).code == 103
    portmap(net, "DEL", c1, WEB).must()
    portmap(net, "ADD", c2, WEB).must()
    portmap(net, "DEL", c2, WEB).must()
    assert net.host.run(["find", "/run/pycni/hostports", "-type", "f"]) == ""


def test_rules_are_imported_again_without_the_marker(net: Wired) -> None:
    c1, c2, c3 = (net.container(number) for number in (1, 2, 3))
    portmap(net, "ADD", c1, WEB).must()
    mine = net.host.run(["sh", "-c", "cat /run/pycni/hostports/by-owner/*"])
    later = WEB | {"hostPort": 8090}
    portmap(net, "ADD", c2, later, bindir=GO).must()
    net.host.run(["rmdir", "/run/pycni/hostports/adopted"])
    assert portmap(net, "ADD", c3, later).code == 103
    # What we know better ourselves stays as it is.
    assert mine in net.host.run(["sh", "-c", "cat /run/pycni/hostports/by-owner/*"])


@pytest.mark.parametrize("chain", ["POSTROUTING", "x" * 1000, "CNI-DN-\0", 5, None])
def test_a_chain_that_is_no_containers_holds_no_port(net: Wired, chain: object) -> None:
    c1, c2 = net.container(1), net.container(2)
    portmap(net, "ADD", c1, WEB).must()
    [path] = net.host.run(["sh", "-c", "echo /run/pycni/hostports/by-owner/*"]).split()
    record = json.loads(net.host.run(["cat", path])) | {"chain": chain, "network": "../*", "identity": []}
    net.host.run(["tee", path], json.dumps(record))
    portmap(net, "ADD", c2, WEB).must()


def test_gc_of_ours_keeps_what_is_valid_of_go(net: Wired) -> None:
    c1, c2 = net.container(1), net.container(2)
    portmap(net, "ADD", c1, WEB, bindir=GO).must()
    assert portmap(net, "ADD", c2, WEB).code == 103
    for valid, code in (("c1", 103), ("c2", 0)):
        attachments = [{"containerID": valid, "ifname": "net7"}]
        conf = {"cniVersion": "1.1.0", "prevResult": None, "cni.dev/valid-attachments": attachments}
        portmap(net, "GC", c1, WEB, conf=conf).must()
        assert portmap(net, "ADD", c2, WEB).code == code


@pytest.mark.parametrize("noted", [True, False])
def test_pain_26_a_dead_container_of_go_does_not_keep_the_port(net: Wired, *, noted: bool) -> None:
    """Its rules are there still; only the runtime's cache tells that nobody is behind them."""
    c1, c2 = net.container(1), net.container(2)
    portmap(net, "ADD", c1, WEB, bindir=GO).must()
    entry = {"kind": "cniCacheV1", "containerId": "c1", "netns": c1.sandbox.path, "result": c1.prev_result}
    cached = json.dumps(entry)
    if noted:
        net.host.run(["install", "-D", "/dev/stdin", "/var/lib/cni/results/net1-c1-eth0"], cached)
    assert portmap(net, "ADD", c2, WEB).code == 103
    c1.sandbox.delete()
    answer = portmap(net, "ADD", c2, WEB)
    assert answer.code == (0 if noted else 103)
    if noted:
        with c2.sandbox.serve(80):
            assert net.host.outside.sandbox.dial(net.host.outside.host_address, 8080)
