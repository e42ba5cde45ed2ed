"""Packets from a network to its own gateway reach the host, whatever ports its neighbours publish."""

from __future__ import annotations

import json
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import GO
from cni.testing.wired import Container, Wired

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cni.testing import Answer, Host, Sandbox

LEGACY = "/run/legacy"
BACKENDS = ("iptables", "legacy", "nftables")
DNS = {"hostPort": 53, "containerPort": 53, "protocol": "udp"}
# How long each of them is asked. A second time is for a busy machine.
PATIENCE_S = (0.7, 5)

backends = pytest.mark.parametrize("backend", BACKENDS)
versions = pytest.mark.parametrize("version", [4, 6])
interop = pytest.mark.skipif(not (GO / "portmap").exists(), reason="the Go plugins are not installed")


class Dns:
    """A network whose host answers on port 53, and a container `a` that publishes its own port 53."""

    def __init__(self, host: Host, backend: str) -> None:
        self.host = host
        self.backend = backend
        self.net = Wired(host)
        self.env: dict[str, str] = {}
        if backend == "legacy":
            host.run(["sh", "-c", _LINK_LEGACY])
            self.env = {"PATH": f"{LEGACY}:/usr/sbin:/usr/bin:/sbin:/bin"}

    def portmap(
        self,
        verb: str,
        container: Container,
        *mappings: Mapping[str, Any],
        net: Wired | None = None,
        **conf: Any,
    ) -> Answer:
        name = "nftables" if self.backend == "nftables" else "iptables"
        keys = {"backend": name, "runtimeConfig": {"portMappings": list(mappings or [DNS])}, **conf}
        return (net or self.net).call("portmap", verb, container, keys, env=self.env)

    def gateway(self, version: int) -> str:
        return self.net.gateway if version == 4 else self.net.gateway6

    def host_address(self, version: int) -> str:
        return self.host.outside.host_address if version == 4 else self.host.outside.host_address6


_LINK_LEGACY = f"""mkdir -p {LEGACY}; for name in iptables ip6tables; do for part in '' -save -restore; do
ln -s /usr/sbin/$name-legacy$part {LEGACY}/$name$part; done; done"""


def who_answers(sandbox: Sandbox | Host, dns: Dns, a: Container, address: str) -> str:
    """Ask port 53 of an address while both host and container answer on theirs; tell who did."""
    for timeout_s in PATIENCE_S:
        with a.sandbox.serve(53, "udp"):
            by_container = sandbox.reaches(address, 53, "udp", timeout_s=timeout_s)
        with dns.host.serve(53, "udp"):
            by_host = sandbox.reaches(address, 53, "udp", timeout_s=timeout_s)
        if by_container or by_host:
            return {(True, False): "a", (False, True): "host"}[by_container, by_host]
    return "nobody"


@pytest.fixture
def dns(host: Host, backend: str) -> Dns:
    return Dns(host, backend)


@backends
@versions
def test_a_published_port_53_does_not_capture_the_neighbours_dns(dns: Dns, version: int) -> None:
    a, b = dns.net.container(1), dns.net.container(2)
    dns.portmap("ADD", a, DNS, DNS | {"protocol": "tcp"}).must()
    gateway, address = dns.gateway(version), dns.host_address(version)
    assert who_answers(b.sandbox, dns, a, gateway) == "host"
    assert who_answers(a.sandbox, dns, a, gateway) == "host"
    # By the host's address, from outside and from the host itself the port is published as ever.
    assert who_answers(b.sandbox, dns, a, address) == "a"
    assert who_answers(dns.host.outside.sandbox, dns, a, address) == "a"
    assert who_answers(dns.host, dns, a, gateway) == "a"
    dns.portmap("CHECK", a, DNS, DNS | {"protocol": "tcp"}).must()


@backends
@versions
def test_the_gateway_is_published_on_when_it_is_asked_for_by_name(dns: Dns, version: int) -> None:
    a, b = dns.net.container(1), dns.net.container(2)
    named = DNS | {"hostIP": dns.gateway(version)}
    dns.portmap("ADD", a, named).must()
    assert who_answers(b.sandbox, dns, a, dns.gateway(version)) == "a"
    with a.sandbox.serve(53, "udp"):
        assert not b.sandbox.reaches(dns.host_address(version), 53, "udp")
    dns.portmap("CHECK", a, named).must()


@backends
@versions
def test_ports_under_conditions_do_not_capture_it_either(dns: Dns, version: int) -> None:
    a, b = dns.net.container(1), dns.net.container(2)
    by_nftables, by_iptables = ["meta", "l4proto", "udp"], ["-m", "comment", "--comment", "x"]
    words = by_nftables if dns.backend == "nftables" else by_iptables
    dns.portmap("ADD", a, conditionsV4=words, conditionsV6=words).must()
    assert who_answers(b.sandbox, dns, a, dns.gateway(version)) == "host"
    assert who_answers(b.sandbox, dns, a, dns.host_address(version)) == "a"


@backends
@versions
def test_networks_that_publish_are_kept_from_each_others_ports(dns: Dns, version: int) -> None:
    """Another network's containers ask their own gateway."""
    other = Wired(dns.host, "net2", "cni1", IPv4Network("10.23.0.0/16"), IPv6Network("fd00:23::/64"))
    a, b = dns.net.container(1), other.container(8)
    dns.portmap("ADD", a).must()
    dns.portmap("ADD", b, DNS | {"hostPort": 5353}, net=other).must()
    assert who_answers(b.sandbox, dns, a, other.gateway if version == 4 else other.gateway6) == "host"
    assert who_answers(b.sandbox, dns, a, dns.host_address(version)) == "a"


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_rules_for_the_gateway_are_checked_and_repaired(dns: Dns, backend: str) -> None:
    a, b = dns.net.container(1), dns.net.container(2)
    dns.portmap("ADD", a).must()
    lose_guard(dns)
    assert who_answers(b.sandbox, dns, a, dns.gateway(4)) == "a"
    answer = dns.portmap("CHECK", a)
    assert answer.code == 104
    repaired = dns.portmap("PYCNI_REPAIR", a)
    repaired.must()
    assert who_answers(b.sandbox, dns, a, dns.gateway(4)) == "host"
    dns.portmap("CHECK", a).must()


def lose_guard(dns: Dns) -> None:
    if dns.backend == "nftables":
        for family in ("ip", "ip6"):
            dns.host.run(["nft", "flush", "chain", family, "pycni", "gateways"])
        return
    for program in ("iptables", "ip6tables"):
        lines = dns.host.run([f"{program}-save", "-t", "nat"]).splitlines()
        for line in lines:
            if line.startswith("-A CNI-DN-") and line.endswith("-j CNI-HOSTPORT-GATEWAYS"):
                dns.host.run([program, "-t", "nat", "-D", *line.split()[1:]])


def forget_release(dns: Dns) -> None:
    """Make the record of the claim one of the first release."""
    [path] = dns.host.run(["sh", "-c", "echo /run/pycni/hostports/by-owner/*"]).split()
    record = json.loads(dns.host.run(["cat", path]))
    for key in ("view", "host", "links"):
        del record[key]
    dns.host.run(["tee", path], json.dumps(record))


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_attachments_of_the_first_release_pass_check_and_are_repaired(dns: Dns, backend: str) -> None:
    a, b = dns.net.container(1), dns.net.container(2)
    dns.portmap("ADD", a).must()
    make_first_release(dns)
    dns.portmap("CHECK", a).must()
    assert who_answers(b.sandbox, dns, a, dns.gateway(4)) == "a"
    dns.portmap("PYCNI_REPAIR", a).must()
    assert who_answers(b.sandbox, dns, a, dns.gateway(4)) == "host"
    dns.portmap("CHECK", a).must()
    dns.portmap("DEL", a).must()


@pytest.mark.parametrize("backend", ["nftables"])
def test_an_add_makes_tables_of_the_first_release_whole(dns: Dns) -> None:
    a, b = dns.net.container(1), dns.net.container(2)
    dns.portmap("ADD", a).must()
    make_first_release(dns)
    dns.portmap("ADD", b, DNS | {"hostPort": 5353}).must()
    for version in (4, 6):
        assert who_answers(b.sandbox, dns, a, dns.gateway(version)) == "host"


def make_first_release(dns: Dns) -> None:
    forget_release(dns)
    if dns.backend != "nftables":
        lose_guard(dns)
        return
    for family, subnet in (("ip", "10.22.0.0/16"), ("ip6", "fd00-22--/64")):
        listed = dns.host.run(["nft", "-a", "list", "chain", family, "pycni", "host_ports"])
        [handle] = [line.split()[-1] for line in listed.splitlines() if "jump gateways" in line]
        table = f"{family} pycni"
        lines = [
            f"delete rule {table} host_ports handle {handle}",
            f"flush chain {table} gateways",
            f"delete chain {table} gateways",
            f"delete set {table} gateway-{subnet}",
        ]
        dns.host.run(["nft", "-f", "-"], "\n".join(lines))


@interop
@pytest.mark.interop
@pytest.mark.parametrize("backend", ["iptables"])
def test_the_go_plugin_checks_and_removes_what_has_it(dns: Dns) -> None:
    a, b = dns.net.container(1), dns.net.container(2)
    dns.portmap("ADD", a).must()
    conf, other = ({"runtimeConfig": {"portMappings": [DNS | {"hostPort": port}]}} for port in (53, 54))
    dns.net.call("portmap", "ADD", b, other, bindir=GO).must()
    said = [dns.net.call("portmap", "CHECK", *each, bindir=GO) for each in ((a, conf), (b, other))]
    # Release 1.1.1 finds fault with IPv6 in what it has made itself.
    assert [each.ok or "could not check ipv6" in each.msg for each in said] == [True, True]
    assert said[0].code == said[1].code
    for each in ((a, conf), (b, other)):
        dns.net.call("portmap", "DEL", *each, bindir=GO).must()
    for program in ("iptables", "ip6tables"):
        assert "CNI-DN-" not in dns.host.run([f"{program}-save", "-t", "nat"])


@pytest.mark.parametrize("backend", ["nftables"])
def test_gc_takes_what_keeps_the_gateway_with_the_last_attachment(dns: Dns) -> None:
    a = dns.net.container(1)
    before = dns.host.snapshot()
    dns.portmap("ADD", a).must()
    dns.portmap("DEL", a).must()
    conf: dict[str, Any] = {"cniVersion": "1.1.0", "prevResult": None, "cni.dev/valid-attachments": []}
    dns.net.call("portmap", "GC", a, conf).must()
    assert [
        line for line in before.differences(dns.host.snapshot()) if "pycni" in line and "/run" not in line
    ] == []
