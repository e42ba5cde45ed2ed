"""Packets from a masqueraded network without ports to its own gateway reach the host, too."""

from __future__ import annotations

import os
from contextlib import suppress
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING, Any

import pytest

from cni.firewall.intents import Gateway, Masquerade, Owner
from cni.firewall.iptables.backend import Iptables
from cni.testing.wired import Wired
from cni.undo import Undo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cni.testing import Answer, Host, Sandbox

LEGACY = "/run/legacy"
DNS = {"hostPort": 53, "containerPort": 53}
BOTH = [DNS | {"protocol": "udp"}, DNS | {"protocol": "tcp"}]
GATEWAYS = {4: "10.24.0.1", 6: "fd00:24::1"}
VERSIONS = (4, 6)
# How long each of them is asked. A second time is for a busy machine.
PATIENCE_S = (0.7, 5)

backends = pytest.mark.parametrize("backend", ["iptables", "legacy", "nftables"])
variants = pytest.mark.parametrize("backend", ["iptables", "legacy"])


class World:
    """A network wired by hand whose container `a` publishes, and a masqueraded one made by bridge."""

    def __init__(self, host: Host, backend: str) -> None:
        self.host = host
        self.net = Wired(host)
        self.a = self.net.container(1)
        self.name = "nftables" if backend == "nftables" else "iptables"
        self.variant = "-legacy" if backend == "legacy" else ""
        self.env: dict[str, str] = {}
        if backend == "legacy":
            host.run(["sh", "-c", _LINK_LEGACY])
            self.env = {"PATH": f"{LEGACY}:/usr/sbin:/usr/bin:/sbin:/bin"}

    def publish(self, *mappings: Mapping[str, Any], verb: str = "ADD") -> Answer:
        keys = {"backend": self.name, "runtimeConfig": {"portMappings": list(mappings or BOTH)}}
        return self.net.call("portmap", verb, self.a, keys, env=self.env)

    def bridge(self, verb: str, sandbox: Sandbox, **keys: Any) -> Answer:
        ranges = [[{"subnet": "10.24.0.0/16"}], [{"subnet": "fd00:24::/64"}]]
        conf: dict[str, Any] = {"cniVersion": "1.1.0", "name": "net2", "type": "bridge", "bridge": "br2"}
        conf |= {"isDefaultGateway": True, "ipMasq": True, "ipMasqBackend": self.name}
        conf |= {"ipam": {"type": "host-local", "ranges": ranges}, **keys}
        return self.host.plugin("bridge", verb, conf, netns=sandbox, container_id=sandbox.name, env=self.env)

    def attach(self, name: str = "b") -> Sandbox:
        sandbox = self.host.sandbox(name)
        self.bridge("ADD", sandbox).must()
        return sandbox

    def who_answers(self, sandbox: Sandbox, address: str, protocol: str = "udp") -> str:
        """Ask port 53 of an address while both the host and `a` answer on theirs; return who did."""
        for timeout_s in PATIENCE_S:
            with self.a.sandbox.serve(53, protocol):
                by_container = sandbox.reaches(address, 53, protocol, timeout_s=timeout_s)
            with self.host.serve(53, protocol):
                by_host = sandbox.reaches(address, 53, protocol, timeout_s=timeout_s)
            if by_container or by_host:
                return {(True, False): "a", (False, True): "host"}[by_container, by_host]
        return "nobody"

    def rules(self, version: int = 4) -> list[str]:
        program = f"{'iptables' if version == 4 else 'ip6tables'}{self.variant}"
        return self.host.run([program, "-t", "nat", "-S"]).splitlines()


_LINK_LEGACY = f"""mkdir -p {LEGACY}; for name in iptables ip6tables; do for part in '' -save -restore; do
ln -s /usr/sbin/$name-legacy$part {LEGACY}/$name$part; done; done"""


@pytest.fixture
def world(host: Host, backend: str) -> World:
    return World(host, backend)


@backends
@pytest.mark.parametrize("first", ["a", "b"])
def test_a_published_port_53_does_not_capture_the_dns_of_another_network(world: World, first: str) -> None:
    if first == "a":
        world.publish().must()
    b = world.attach()
    if first == "b":
        world.publish().must()
    outside = world.host.outside
    for version, published in ((4, outside.host_address), (6, outside.host_address6)):
        assert [world.who_answers(b, GATEWAYS[version], each) for each in ("udp", "tcp")] == ["host", "host"]
        assert [world.who_answers(b, published, each) for each in ("udp", "tcp")] == ["a", "a"]
        # The other network's gateway is an address of the host like any other.
        gateway = world.net.gateway if version == 4 else world.net.gateway6
        assert world.who_answers(b, gateway) == "a"
    world.publish(verb="CHECK").must()


@backends
def test_the_gateway_of_another_network_can_be_published_on_by_name(world: World) -> None:
    b = world.attach()
    mappings = [DNS | {"protocol": "tcp", "hostIP": GATEWAYS[version]} for version in VERSIONS]
    world.publish(DNS | {"protocol": "udp"}, *mappings).must()
    for version in VERSIONS:
        assert world.who_answers(b, GATEWAYS[version], "tcp") == "a"
        assert world.who_answers(b, GATEWAYS[version]) == "host"
    world.publish(DNS | {"protocol": "udp"}, *mappings, verb="CHECK").must()


@variants
def test_the_next_add_of_a_network_names_its_gateway_again(world: World) -> None:
    b = world.attach()
    world.publish().must()
    for program in ("iptables", "ip6tables"):
        world.host.run([f"{program}{world.variant}", "-t", "nat", "-F", "CNI-HOSTPORT-GATEWAYS"])
    assert world.who_answers(b, GATEWAYS[4]) == "a"
    world.attach("c")
    assert [world.who_answers(b, GATEWAYS[version]) for version in VERSIONS] == ["host", "host"]


@variants
def test_each_gateway_is_named_once_and_goes_when_the_host_loses_it(world: World) -> None:
    before = [world.rules(version) for version in VERSIONS]
    b, c = world.attach("b"), world.attach("c")
    for version in VERSIONS:
        assert len([line for line in world.rules(version) if line.startswith("-N CNI-GW-")]) == 1
    for each in (b, c):
        world.bridge("DEL", each).must()
    collect: dict[str, Any] = {"cni.dev/valid-attachments": []}
    world.bridge("GC", b, **collect).must()
    world.host.run(["sh", "-c", "ip link del br2 2>/dev/null || true"])
    world.bridge("GC", b, **collect).must()
    shared = ["-N CNI-HOSTPORT-GATEWAYS"]
    after = [world.rules(version) for version in VERSIONS]
    assert [[line for line in lines if line not in shared] for lines in after] == before


@variants
def test_gateways_that_the_host_has_lost_do_not_pile_up_without_gc(world: World) -> None:
    lines = ["*nat", "-N CNI-HOSTPORT-GATEWAYS"]
    for number in range(64):
        lines += [
            f"-N CNI-GW-{number:021x}",
            f"-A CNI-GW-{number:021x} -s 10.99.{number}.0/24 -m addrtype ! --src-type LOCAL -j ACCEPT",
            f"-A CNI-HOSTPORT-GATEWAYS -d 10.99.{number}.1/32 -j CNI-GW-{number:021x}",
        ]
    restore = [f"iptables{world.variant}-restore", "--noflush"]
    world.host.run(restore, "\n".join([*lines, "COMMIT", ""]))
    world.attach()
    assert len([line for line in world.rules() if line.startswith("-N CNI-GW-")]) == 1


@variants
def test_a_failed_add_forgets_the_gateway_that_it_named(world: World) -> None:
    world.publish().must()
    before = [world.rules(version) for version in VERSIONS]
    targets = (ip_interface("10.24.0.2/16"), ip_interface("fd00:24::2/64"))
    gateways = tuple(
        Gateway(ip_address(GATEWAYS[version]), target.network)
        for version, target in zip(VERSIONS, targets, strict=True)
    )
    intent = Masquerade(Owner("net2", "b", "eth0"), targets, gateways)

    def fail() -> list[str]:
        os.environ.update(world.env)
        with suppress(KeyError), Undo() as undo:
            Iptables().apply(intent, undo)
            named = Iptables().differences(intent)
            raise KeyError
        return named

    assert world.host.call(fail) == []
    assert [world.rules(version) for version in VERSIONS] == before
