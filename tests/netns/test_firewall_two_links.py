"""One container with two links on one network: the removal of one keeps the rules of the other."""

from __future__ import annotations

import os
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

import pytest

from cni.firewall import select
from cni.firewall.intents import Masquerade, Owner, PortForward, PortMapping
from cni.undo import Undo
from tests.netns.firewall_hosts import NFT, VARIANTS, plain
from tests.support import scene

if TYPE_CHECKING:
    from cni.firewall.intents import Intent
    from cni.result import IpInterface
    from cni.testing import Host, Sandbox

SETUPS = [*(f"iptables-{variant}" for variant in VARIANTS), "nftables"]
FIRST = (ip_interface("10.22.0.2/16"), ip_interface("fd00:22::2/64"))
SECOND = (ip_interface("10.22.0.3/16"), ip_interface("fd00:22::3/64"))
IPAM = {"type": scene.IPAM, "ranges": [[{"subnet": "10.24.0.0/16"}]]}
setups = pytest.mark.parametrize("setup", SETUPS)


def masquerade(ifname: str, addresses: tuple[IpInterface, ...]) -> Intent:
    return Masquerade(Owner("net1", "cid1", ifname), addresses)


def forward(ifname: str, addresses: tuple[IpInterface, ...]) -> Intent:
    return PortForward(Owner("net1", "cid1", ifname), (PortMapping("tcp", 8080, 80),), addresses)


def _add(backend: str, intent: Intent) -> None:
    with Undo() as undo:
        select.choose_for_add(backend, "test").apply(intent, undo)


def _differences(backend: str, intent: Intent) -> list[str]:
    return select.choose(backend, "test").differences(intent)


def _remove(intent: Intent, addresses: tuple[IpInterface, ...]) -> None:
    select.remove(intent.owner, intent.kind, [each.ip for each in addresses])


def _use(host: Host, setup: str) -> str:
    """Let the host have the programs of one setup only. Return the backend."""
    backend, _, variant = setup.partition("-")
    programs = NFT if backend == "nftables" else plain(variant)
    links = [f"ln -s /usr/sbin/{program} /run/bin/{name}" for name, program in programs.items()]
    host.run(["sh", "-c", "; ".join(["mkdir /run/bin", *links])])
    return backend


@pytest.mark.parametrize("make", [masquerade, forward])
@pytest.mark.parametrize("which", ["the first", "the second"])
@setups
def test_the_other_link_keeps_its_rules(host: Host, setup: str, make: Any, which: str) -> None:
    backend = _use(host, setup)
    links = [(make("eth0", FIRST), FIRST), (make("eth1", SECOND), SECOND)]
    removed, remaining = links if which == "the first" else links[::-1]

    def run() -> list[list[str]]:
        os.environ["PATH"] = "/run/bin"
        for intent, _ in links:
            _add(backend, intent)
        # A DEL may come twice.
        for _ in range(2):
            _remove(*removed)
        found = [_differences(backend, remaining[0]), _differences(backend, removed[0])]
        _remove(*remaining)
        return [*found, _differences(backend, remaining[0])]

    kept, gone, gone_later = host.call(run)
    assert kept == []
    assert gone != []
    assert gone_later != []
    for family in ("iptables", "ip6tables"):
        rules = host.run([f"{family}-{setup.partition('-')[2] or 'nft'}-save", "-t", "nat"])
        assert "cid1" not in rules


@setups
def test_without_addresses_the_rules_of_all_links_of_a_container_may_go(host: Host, setup: str) -> None:
    backend = _use(host, setup)
    first, second = masquerade("eth0", FIRST), masquerade("eth1", SECOND)

    def run() -> list[list[str]]:
        os.environ["PATH"] = "/run/bin"
        for intent in (first, second):
            _add(backend, intent)
        for intent in (first, second):
            _remove(intent, ())
        return [_differences(backend, each) for each in (first, second)]

    assert all(host.call(run))


class Chain:
    """Attachments made by bridge and portmap with iptables, of one container with several links."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.sandbox: Sandbox = host.sandbox("c1")
        self.results: dict[str, Any] = {}

    def call(self, plugin: str, verb: str, ifname: str, port: int = 8080) -> Any:
        keys: dict[str, Any] = {"bridge": "br0", "isGateway": True, "ipMasq": True, "ipam": IPAM}
        if plugin == scene.PORTS:
            mapping = {"hostPort": port, "containerPort": 80, "protocol": "tcp"}
            keys = {"backend": "iptables", "runtimeConfig": {"portMappings": [mapping]}}
        conf = {"cniVersion": "1.1.0", "name": "net1", "type": plugin, **keys}
        if ifname in self.results:
            conf["prevResult"] = self.results[ifname]
        answer = self.host.plugin(
            plugin, verb, conf, netns=self.sandbox, container_id="c1", ifname=ifname
        ).must()
        if verb == "ADD":
            self.results[ifname] = answer
        return answer

    def collect(self, *valid: str) -> None:
        """Collect what no link has that is not named."""
        attachments = [{"containerID": "c1", "ifname": each} for each in valid]
        for plugin in (scene.PORTS, scene.INTERFACE):
            conf: dict[str, Any] = {"cniVersion": "1.1.0", "name": "net1", "type": plugin}
            conf["cni.dev/valid-attachments"] = attachments
            if plugin == scene.INTERFACE:
                conf |= {"bridge": "br0", "ipMasq": True, "ipam": IPAM}
            self.host.plugin(plugin, "GC", conf).must()

    def claims(self) -> int:
        return len(self.host.run(["ls", "/run/pycni/hostports/by-owner"]).split())

    def rules(self) -> list[str]:
        lines = self.host.run(["iptables-save", "-t", "nat"]).splitlines()
        return [line for line in lines if line.startswith("-A") and "c1" in line]


@pytest.mark.parametrize("plugin", [scene.INTERFACE, scene.PORTS])
def test_del_of_one_link_keeps_masquerade_and_ports_of_the_other(host: Host, plugin: str) -> None:
    chain = Chain(host)
    for ifname in ("eth0", "eth1"):
        chain.call(scene.INTERFACE, "ADD", ifname)
        if plugin == scene.PORTS:
            chain.call(plugin, "ADD", ifname)
    chain.call(plugin, "DEL", "eth0")
    chain.call(plugin, "CHECK", "eth1")
    for ifname in ("eth0", "eth1"):
        if plugin == scene.PORTS:
            chain.call(plugin, "DEL", ifname)
        chain.call(scene.INTERFACE, "DEL", ifname)
    assert chain.rules() == []


def test_gc_of_one_link_keeps_masquerade_and_ports_of_the_other(host: Host) -> None:
    chain = Chain(host)
    for ifname in ("eth0", "eth1"):
        chain.call(scene.INTERFACE, "ADD", ifname)
        chain.call(scene.PORTS, "ADD", ifname)
    chain.collect("eth0", "eth1")
    assert chain.claims() == 2
    chain.collect("eth1")
    assert chain.claims() == 1
    chain.call(scene.INTERFACE, "CHECK", "eth1")
    chain.call(scene.PORTS, "CHECK", "eth1")
    chain.collect()
    assert (chain.claims(), chain.rules()) == (0, [])
