"""Real packets through published ports: every way in, both families, every backend."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.wired import Container, Wired

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cni.testing import Answer, Host

BACKENDS = ("iptables", "legacy", "nftables")
LEGACY = "/run/legacy"
FAMILIES = (4, 6)
UNSPECIFIED = {4: "0.0.0.0", 6: "::"}  # noqa: S104 - what a user may write
PROTOCOLS = ("tcp", "udp")

backends = pytest.mark.parametrize("backend", BACKENDS)
versions = pytest.mark.parametrize("version", FAMILIES)
protocols = pytest.mark.parametrize("protocol", PROTOCOLS)


class Published:
    """A network on which portmap is called with one backend."""

    def __init__(self, host: Host, backend: str) -> None:
        self.net = Wired(host)
        self.host = host
        self.outside = host.outside
        self.backend = backend
        self.env: dict[str, str] = {}
        if backend == "legacy":
            host.run(["sh", "-c", _LINK_LEGACY])
            self.env = {"PATH": f"{LEGACY}:/usr/sbin:/usr/bin:/sbin:/bin"}

    def portmap(
        self, verb: str, container: Container, mappings: list[dict[str, Any]], conf: Mapping[str, Any]
    ) -> Answer:
        name = "nftables" if self.backend == "nftables" else "iptables"
        keys = {"backend": name, "runtimeConfig": {"portMappings": mappings}, **conf}
        return self.net.call("portmap", verb, container, keys, env=self.env)

    def add(self, container: Container, *mappings: dict[str, Any], **conf: Any) -> Answer:
        answer = self.portmap("ADD", container, list(mappings), conf)
        answer.must()
        return answer

    def delete(self, container: Container, *mappings: dict[str, Any]) -> None:
        self.portmap("DEL", container, list(mappings), {}).must()

    def host_address(self, version: int) -> str:
        return self.outside.host_address if version == 4 else self.outside.host_address6

    def client_address(self, version: int) -> str:
        return self.outside.address if version == 4 else self.outside.address6

    def gateway(self, version: int) -> str:
        return self.net.gateway if version == 4 else self.net.gateway6


_LINK_LEGACY = f"""mkdir -p {LEGACY}; for name in iptables ip6tables; do for part in '' -save -restore; do
ln -s /usr/sbin/$name-legacy$part {LEGACY}/$name$part; done; done"""


@pytest.fixture
def published(host: Host, backend: str) -> Published:
    return Published(host, backend)


def mapping(host_port: int, container_port: int, protocol: str = "tcp", host_ip: str = "") -> dict[str, Any]:
    given: dict[str, Any] = {"hostPort": host_port, "containerPort": container_port, "protocol": protocol}
    return given | ({"hostIP": host_ip} if host_ip else {})


@backends
@protocols
@versions
def test_a_published_port_answers_from_everywhere(published: Published, protocol: str, version: int) -> None:
    c1, c2 = published.net.container(1), published.net.container(2)
    published.add(c1, mapping(8080, 80, protocol))
    target = published.host_address(version)
    with c1.sandbox.serve(80, protocol):
        seen = {
            "outside": published.outside.sandbox.dial(target, 8080, protocol).address,
            "host": published.host.dial(target, 8080, protocol).address,
            "itself": c1.sandbox.dial(target, 8080, protocol).address,
            "neighbour": c2.sandbox.dial(target, 8080, protocol).address,
        }
    assert seen == {
        "outside": published.client_address(version),
        "host": target,
        "itself": published.gateway(version),
        "neighbour": published.gateway(version),
    }


@backends
@protocols
def test_localhost_of_the_host_reaches_a_published_port(published: Published, protocol: str) -> None:
    c1 = published.net.container()
    published.add(c1, mapping(8080, 80, protocol))
    with c1.sandbox.serve(80, protocol):
        assert published.host.dial("127.0.0.1", 8080, protocol).address == published.net.gateway


@backends
@protocols
@versions
def test_a_port_is_closed_again_after_del(published: Published, protocol: str, version: int) -> None:
    c1 = published.net.container()
    published.add(c1, mapping(8080, 80, protocol))
    target = published.host_address(version)
    with c1.sandbox.serve(80, protocol):
        assert published.outside.sandbox.reaches(target, 8080, protocol, timeout_s=10)
        published.delete(c1)
        assert not published.outside.sandbox.reaches(target, 8080, protocol)


@backends
@versions
def test_a_host_ip_publishes_on_that_address_only(published: Published, version: int) -> None:
    c1 = published.net.container()
    other = "192.0.2.9" if version == 4 else "2001:db8:ffff::9"
    length = "24" if version == 4 else "64"
    nodad = [] if version == 4 else ["nodad"]
    published.host.run(["ip", "addr", "add", f"{other}/{length}", "dev", "eth0", *nodad])
    published.add(c1, mapping(8080, 80, host_ip=other))
    with c1.sandbox.serve(80):
        assert published.outside.sandbox.dial(other, 8080).address == published.client_address(version)
        assert published.host.dial(other, 8080)
        assert c1.sandbox.dial(other, 8080).address == published.gateway(version)
        assert not published.outside.sandbox.reaches(published.host_address(version), 8080)


@backends
@versions
def test_an_unspecified_host_ip_publishes_on_one_family(published: Published, version: int) -> None:
    c1 = published.net.container()
    published.add(c1, mapping(8080, 80, host_ip=UNSPECIFIED[version]))
    with c1.sandbox.serve(80):
        assert published.outside.sandbox.reaches(published.host_address(version), 8080, timeout_s=10)
        assert not published.outside.sandbox.reaches(published.host_address(10 - version), 8080)


@backends
def test_two_containers_share_a_port_on_two_host_addresses(published: Published) -> None:
    c1, c2 = published.net.container(1), published.net.container(2)
    published.host.run(["ip", "addr", "add", "192.0.2.9/24", "dev", "eth0"])
    published.add(c1, mapping(8080, 80, host_ip="192.0.2.1"))
    published.add(c2, mapping(8080, 81, host_ip="192.0.2.9"))
    with c1.sandbox.serve(80), c2.sandbox.serve(81):
        assert published.outside.sandbox.reaches("192.0.2.1", 8080, timeout_s=10)
        assert published.outside.sandbox.reaches("192.0.2.9", 8080, timeout_s=10)
    with c2.sandbox.serve(81):
        assert not published.outside.sandbox.reaches("192.0.2.1", 8080)


@backends
@versions
def test_masq_all_hides_the_client(published: Published, version: int) -> None:
    c1 = published.net.container()
    published.add(c1, mapping(8080, 80), masqAll=True)
    with c1.sandbox.serve(80):
        seen = published.outside.sandbox.dial(published.host_address(version), 8080).address
    assert seen == published.gateway(version)


@backends
@versions
def test_without_snat_outside_works_and_hairpin_does_not(published: Published, version: int) -> None:
    c1 = published.net.container()
    published.add(c1, mapping(8080, 80), snat=False)
    target = published.host_address(version)
    with c1.sandbox.serve(80):
        seen = published.outside.sandbox.dial(target, 8080).address
        assert seen == published.client_address(version)
        assert not c1.sandbox.reaches(target, 8080)
    localnet = published.host.run(["cat", "/proc/sys/net/ipv4/conf/cni0/route_localnet"])
    assert localnet.strip() == "0"


@backends
@versions
def test_a_udp_flow_moves_to_the_container_when_it_is_published(published: Published, version: int) -> None:
    """A flow tracked before ADD, to the host itself, would go on to the host as long as packets come."""
    c1 = published.net.container()
    target = published.host_address(version)
    client = published.outside.sandbox
    source = published.client_address(version)
    with published.host.serve(5353, "udp"):
        client.call(_ask_from, target, 5353, source)
    published.add(c1, mapping(5353, 53, "udp"))
    with c1.sandbox.serve(53, "udp"):
        assert client.call(_ask_from, target, 5353, source) == source


@backends
@versions
@pytest.mark.parametrize("runtime_tells", [True, False])
def test_a_udp_flow_is_not_sent_to_a_dead_container(
    published: Published, version: int, *, runtime_tells: bool
) -> None:
    c1 = published.net.container()
    target = published.host_address(version)
    client = published.outside.sandbox
    source = published.client_address(version)
    ports = [mapping(5353, 53, "udp")]
    published.add(c1, *ports)
    with c1.sandbox.serve(53, "udp"):
        client.call(_ask_from, target, 5353, source)
    published.delete(c1, *(ports if runtime_tells else []))
    with published.host.serve(5353, "udp"):
        assert client.call(_ask_from, target, 5353, source) == source


def _ask_from(address: str, port: int, source: str) -> str:
    """Ask from always the same source port, as one flow."""

    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(20)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind((source, 40000))
        client.connect((address, port))
        client.send(b"?")
        return client.recv(1000).decode().split()[0]


@pytest.mark.parametrize("backend", ["iptables", "legacy"])
def test_the_mark_bit_is_the_one_that_is_set(published: Published) -> None:
    c1 = published.net.container()
    published.add(c1, mapping(8080, 80), markMasqBit=3)
    save = "iptables-legacy-save" if published.backend == "legacy" else "iptables-nft-save"
    rules = published.host.run([save, "-t", "nat"])
    assert "--set-xmark 0x8/0x8" in rules
    assert "--mark 0x8/0x8 -j MASQUERADE" in rules
    with c1.sandbox.serve(80):
        assert c1.sandbox.dial(published.host_address(4), 8080).address == published.net.gateway


EXTERNAL_CHAIN = (
    "-N KUBE-MARK-MASQ",
    "-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000",
    "-A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE",
)


@pytest.mark.parametrize("backend", ["iptables", "legacy"])
@versions
def test_an_external_chain_marks_instead_of_ours(published: Published, version: int) -> None:
    c1 = published.net.container()
    variant = "legacy" if published.env else "nft"
    programs = [f"iptables-{variant}", f"ip6tables-{variant}"]
    for program in programs:
        for rule in EXTERNAL_CHAIN:
            published.host.run([program, "-t", "nat", *rule.split()])
    published.add(c1, mapping(8080, 80), externalSetMarkChain="KUBE-MARK-MASQ")
    for program in programs:
        assert "CNI-HOSTPORT-SETMARK" not in published.host.run([program, "-t", "nat", "-S"])
    with c1.sandbox.serve(80):
        seen = c1.sandbox.dial(published.host_address(version), 8080).address
    assert seen == published.gateway(version)


CONDITIONS = {
    "iptables": (["!", "-s", "192.0.2.2/32"], ["!", "-s", "2001:db8:ffff::2/128"]),
    "legacy": (
        ["-m", "comment", "--comment", "two words", "!", "-s", "192.0.2.2"],
        ["!", "-s", "2001:db8:ffff::2"],
    ),
    "nftables": (["ip", "saddr", "!=", "192.0.2.2"], ["ip6", "saddr", "!=", "2001:db8:ffff::2"]),
}


@backends
@versions
def test_conditions_keep_others_out(published: Published, version: int) -> None:
    c1 = published.net.container()
    conditions_v4, conditions_v6 = CONDITIONS[published.backend]
    ports = [mapping(8080, 80)]
    conf = {"conditionsV4": conditions_v4, "conditionsV6": conditions_v6}
    published.add(c1, *ports, **conf)
    target = published.host_address(version)
    with c1.sandbox.serve(80):
        assert published.host.reaches(target, 8080, timeout_s=10)
        assert not published.outside.sandbox.reaches(target, 8080)
    published.portmap("CHECK", c1, ports, conf).must()


@backends
def test_a_range_of_ports_is_published_in_one_go(published: Published) -> None:
    c1 = published.net.container()
    ports = [mapping(port, port + 1000, PROTOCOLS[port % 2]) for port in range(8000, 9001)]
    published.add(c1, *ports)
    with c1.sandbox.serve(9000), c1.sandbox.serve(10000):
        assert published.outside.sandbox.reaches(published.host_address(4), 8000, timeout_s=10)
        assert published.outside.sandbox.reaches(published.host_address(6), 9000, timeout_s=10)
    published.portmap("CHECK", c1, ports, {}).must()
    published.delete(c1, *ports)
    assert not published.host.reaches(published.host_address(4), 8500)
