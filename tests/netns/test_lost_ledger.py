"""After /run/pycni or rules that all share are lost, an ADD still refuses and reaches what it should."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.wired import Wired
from tests.support import scene

if TYPE_CHECKING:
    from cni.testing import Answer, Host
    from cni.testing.wired import Container

pytestmark = pytest.mark.modes("warm")

BACKENDS = ("iptables", "nftables")
WEB = {"hostPort": 8081, "containerPort": 80, "protocol": "tcp"}
TAKEN = 103

backends = pytest.mark.parametrize("backend", BACKENDS)


@pytest.fixture
def net(host: Host) -> Wired:
    return Wired(host)


def portmap(net: Wired, verb: str, container: Container, backend: str, **mapping: Any) -> Answer:
    conf = {"backend": backend, "runtimeConfig": {"portMappings": [WEB | mapping]}}
    return net.call(scene.PORTS, verb, container, conf)


@backends
@pytest.mark.parametrize(("held", "asked"), [("", "127.0.0.1"), ("127.0.0.1", ""), ("::", "::1"), ("", "")])
def test_overlapping_addresses_are_refused_when_the_ledger_was_removed(
    net: Wired, backend: str, held: str, asked: str
) -> None:
    c1, c2 = net.container(1), net.container(2)
    portmap(net, "ADD", c1, backend, hostIP=held).must()
    net.host.run(["rm", "-rf", "/run/pycni"])
    answer = portmap(net, "ADD", c2, backend, hostIP=asked)
    assert answer.code == TAKEN
    assert 'container "c1"' in answer.msg
    # Another port is free, and DEL, told nothing, frees this one.
    portmap(net, "ADD", c2, backend, hostIP=asked, hostPort=8090).must()
    conf = {"cniVersion": net.version, "name": net.name, "type": scene.PORTS}
    net.host.plugin(scene.PORTS, "DEL", conf, container_id="c1").must()
    portmap(net, "ADD", c2, backend, hostIP=asked).must()


@backends
def test_a_port_is_free_when_what_was_found_is_gone(net: Wired, backend: str) -> None:
    c1, c2 = net.container(1), net.container(2)
    portmap(net, "ADD", c1, backend).must()
    net.host.run(["rm", "-rf", "/run/pycni"])
    assert portmap(net, "ADD", c2, backend).code == TAKEN
    net.host.run(["nft", "flush", "ruleset"])
    portmap(net, "ADD", c2, backend).must()


CHAINS = ("prerouting", "output", "host_ports", "postrouting", "hairpin", "leaving", "gateways")


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("family", ["ip", "ip6"])
def test_an_add_makes_flushed_chains_of_nftables_whole(net: Wired, chain: str, family: str) -> None:
    c1, c2 = net.container(1), net.container(2)
    portmap(net, "ADD", c1, "nftables").must()
    before = net.host.run(["nft", "list", "table", family, "pycni"])
    net.host.run(["nft", "flush", "chain", family, "pycni", chain])
    portmap(net, "ADD", c2, "nftables", hostPort=8090).must()
    portmap(net, "CHECK", c1, "nftables").must()
    portmap(net, "CHECK", c2, "nftables", hostPort=8090).must()
    portmap(net, "DEL", c2, "nftables").must()
    assert net.host.run(["nft", "list", "table", family, "pycni"]) == before


def test_an_add_makes_a_removed_hook_again(net: Wired) -> None:
    c1, c2 = net.container(1), net.container(2)
    portmap(net, "ADD", c1, "nftables").must()
    net.host.run(["nft", "flush chain ip pycni prerouting; delete chain ip pycni prerouting"])
    portmap(net, "ADD", c2, "nftables", hostPort=8090).must()
    for container, port in ((c1, 8081), (c2, 8090)):
        with container.sandbox.serve(80):
            assert net.host.outside.sandbox.reaches(net.host.outside.host_address, port, timeout_s=10)


@pytest.mark.parametrize("backend", ["iptables"])
@pytest.mark.parametrize(
    "damage",
    [
        "-F PREROUTING",
        "-F OUTPUT",
        "-F POSTROUTING",
        "-F CNI-HOSTPORT-DNAT",
        "-F CNI-HOSTPORT-MASQ",
        "-F CNI-HOSTPORT-SETMARK",
        "-F CNI-HOSTPORT-GATEWAYS",
        "-F",
    ],
)
def test_an_add_makes_flushed_chains_of_iptables_lead_to_its_port(
    net: Wired, backend: str, damage: str
) -> None:
    c1, c2 = net.container(1), net.container(2)
    portmap(net, "ADD", c1, backend).must()
    for program in ("iptables", "ip6tables"):
        net.host.run([program, "-t", "nat", *damage.split()])
    portmap(net, "ADD", c2, backend, hostPort=8090).must()
    portmap(net, "CHECK", c2, backend, hostPort=8090).must()
    with c2.sandbox.serve(80):
        for address in (net.host.outside.host_address, net.host.outside.host_address6):
            assert net.host.outside.sandbox.reaches(address, 8090, timeout_s=5)
            assert net.host.reaches(address, 8090, timeout_s=5)
            assert c1.sandbox.reaches(address, 8090, timeout_s=5)
