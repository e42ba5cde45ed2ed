"""Masquerading of one family, and with exceptions: real packets and who their sender is outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.network import SUBNET, SUBNET6, Attached, Network

if TYPE_CHECKING:
    from cni.testing import Host

backends = pytest.mark.parametrize("backend", ["iptables", "nftables"])
VERSIONS = (4, 6)
# Another address of the peer outside, in a network of its own.
FAR = {4: "198.51.100.7", 6: "2001:db8:cafe::7"}


class World:
    """A masqueraded network, and a peer outside that knows the way back to its containers."""

    def __init__(self, host: Host, backend: str, **keys: Any) -> None:
        self.host = host
        self.backend = backend
        self.outside = host.outside
        peer = self.outside.sandbox
        peer.run(["ip", "address", "add", f"{FAR[4]}/32", "dev", "lo"])
        peer.run(["ip", "address", "add", f"{FAR[6]}/128", "dev", "lo", "nodad"])
        peer.run(["ip", "route", "add", SUBNET, "via", self.outside.host_address])
        peer.run(["ip", "route", "add", SUBNET6, "via", self.outside.host_address6])
        self.net = Network(host, isDefaultGateway=True, ipMasq=True, ipMasqBackend=backend, **keys)

    def seen(self, container: Attached, version: int, address: str = "") -> str:
        """Return whose address the peer outside sees: that of the host, or the container's own."""
        near = self.outside.address if version == 4 else self.outside.address6
        host = self.outside.host_address if version == 4 else self.outside.host_address6
        own = container.address if version == 4 else container.address6
        with self.outside.sandbox.serve(80):
            return {host: "host", own: "container"}[container.sandbox.dial(address or near, 80).address]

    def rules(self) -> str:
        if self.backend == "nftables":
            return self.host.run(["nft", "list", "ruleset"])
        return "".join(self.host.run([each, "-t", "nat"]) for each in ("iptables-save", "ip6tables-save"))


@backends
@pytest.mark.parametrize("family", ["ipv4", "IPv6"])
def test_one_family_is_masqueraded(host: Host, backend: str, family: str) -> None:
    world = World(host, backend, ipMasqFamilies=[family])
    one = world.net.add("c1")
    expected = {version: "host" if family.endswith(str(version)) else "container" for version in VERSIONS}
    assert {version: world.seen(one, version) for version in VERSIONS} == expected
    world.net.check(one).must()
    world.net.call("STATUS", "", netns="").must()
    world.net.delete("c1")
    assert one.address not in world.rules()


@backends
def test_exceptions_keep_the_containers_address(host: Host, backend: str) -> None:
    excepted = ["198.51.100.0/24", "198.51.100.7", FAR[6], "10.0.0.0/8"]
    world = World(host, backend, ipMasqExcept=excepted)
    one, two = world.net.add("c1"), world.net.add("c2")
    for version in VERSIONS:
        for container in (one, two):
            assert world.seen(container, version) == "host"
            assert world.seen(container, version, FAR[version]) == "container"
    world.net.check(one).must()
    wider = {"ipMasqExcept": ["198.51.0.0/16", FAR[6]]}
    assert world.net.check(one, keys=wider).code == 104
    world.net.delete("c1")
    assert one.address not in world.rules()
    assert world.seen(two, 4, FAR[4]) == "container"
    world.net.delete("c2")
    if backend == "iptables":
        assert "198.51.100" not in world.rules()


@backends
def test_lost_exceptions_are_repaired(host: Host, backend: str) -> None:
    world = World(host, backend, ipMasqExcept=[FAR[4]])
    one = world.net.add("c1")
    if backend == "nftables":
        host.run(["nft", "flush", "set", "ip", "pycni", "not_masqueraded"])
    else:
        [rule] = [line for line in world.rules().splitlines() if f"-d {FAR[4]}" in line]
        name, rest = rule.split()[1], rule.split(" ", 2)[2]
        host.run(["sh", "-c", f"iptables -t nat -D {name} {rest}"])
    assert world.seen(one, 4, FAR[4]) == "host"
    assert world.net.check(one).code == 104
    repaired = world.net.call("PYCNI_REPAIR", "c1", keys={"prevResult": one.answer.json})
    assert (len(repaired.json["repaired"]), repaired.json["failed"]) == (1, [])
    world.net.check(one).must()
    assert world.seen(one, 4, FAR[4]) == "container"
    world.net.call("GC", "", netns="", keys={"cni.dev/valid-attachments": []}).must()
    assert FAR[4] not in world.rules()


def test_wrong_keys_are_named(host: Host) -> None:
    for keys, named in (
        ({"ipMasqFamilies": ["ip"]}, '"ipMasqFamilies" must name "ipv4" or "ipv6"'),
        ({"ipMasqFamilies": []}, '"ipMasqFamilies" must name "ipv4" or "ipv6"'),
        ({"ipMasqExcept": ["10.1.2.3/8"]}, 'entry "10.1.2.3/8" in ipMasqExcept'),
        ({"ipMasqExcept": ["10.0.0.0/8", "here"]}, 'entry "here" in ipMasqExcept'),
    ):
        answer = Network(host, ipMasq=True, **keys).call("ADD", "c1", "/run/netns/none")
        assert answer.code == 7
        assert named in answer.msg
