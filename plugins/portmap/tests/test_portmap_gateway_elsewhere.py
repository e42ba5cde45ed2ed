"""A bridge without `isGateway`, whose gateway is another machine: no rules for that gateway are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from cni.testing import Answer, Host, Sandbox

ELSEWHERE = {4: "10.27.0.254", 6: "fd00:27::fe"}
MAPPINGS = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
backends = pytest.mark.parametrize("backend", ["iptables", "nftables"])


class Outer:
    """A network whose gateway is not on the host, as `bridge` with a port of the host's network has it."""

    def __init__(self, host: Host, backend: str, **keys: Any) -> None:
        self.host = host
        self.backend = backend
        ranges = [
            [{"subnet": subnet, "gateway": ELSEWHERE[version]}]
            for version, subnet in ((4, "10.27.0.0/24"), (6, "fd00:27::/64"))
        ]
        self.keys = {"ipam": {"type": "host-local", "ranges": ranges}, "bridge": "br0", **keys}
        self.result: dict[str, Any] = {}

    def call(self, plugin: str, verb: str, sandbox: Sandbox, **more: Any) -> Answer:
        """Call a plugin of the chain, with the result of the bridge."""
        own = {"portmap": {"backend": self.backend, "runtimeConfig": {"portMappings": MAPPINGS}}}
        keys = own.get(plugin, self.keys)
        conf = {"cniVersion": "1.1.0", "name": "outer", "type": plugin, **keys, **more}
        if self.result:
            conf["prevResult"] = self.result
        return self.host.plugin(plugin, verb, conf, netns=sandbox, container_id=sandbox.name)

    def attach(self) -> Sandbox:
        sandbox = self.host.sandbox("c1")
        answer = self.call("bridge", "ADD", sandbox)
        answer.must()
        self.result = answer.json
        return sandbox

    def rules_of_gateways(self) -> list[str]:
        """Return all that names the gateway in the packet filter."""
        if self.backend == "nftables":
            listed = self.host.run(["nft", "list", "ruleset"])
        else:
            listed = self.host.run(["iptables-save"]) + self.host.run(["ip6tables-save"])
        return [line for line in listed.splitlines() if "CNI-GW" in line or "10.27.0.254" in line]


@backends
def test_published_ports_stay_right_after_a_gc(host: Host, backend: str) -> None:
    outer = Outer(host, backend)
    sandbox = outer.attach()
    outer.call("portmap", "ADD", sandbox).must()
    assert outer.rules_of_gateways() == []
    outer.call("portmap", "CHECK", sandbox).must()
    valid = {"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]}
    outer.call("portmap", "GC", sandbox, **valid).must()
    outer.call("portmap", "CHECK", sandbox).must()
    assert outer.call("portmap", "PYCNI_REPAIR", sandbox).json["repaired"] == []
    outer.call("portmap", "DEL", sandbox).must()


@backends
def test_masquerading_makes_none_either(host: Host, backend: str) -> None:
    outer = Outer(host, backend, ipMasq=True, ipMasqBackend=backend)
    sandbox = outer.attach()
    assert outer.rules_of_gateways() == []
    outer.call("bridge", "CHECK", sandbox).must()


@backends
def test_a_gateway_that_the_host_has_is_named(host: Host, backend: str) -> None:
    """Another program gave it to the host. IPv6 is asked for at once, when its route may not be there."""
    host.run(["ip", "link", "add", "br0", "type", "bridge"])
    for version, length in ((4, 24), (6, 64)):
        host.run(["ip", "address", "add", f"{ELSEWHERE[version]}/{length}", "dev", "br0"])
    outer = Outer(host, backend)
    sandbox = outer.attach()
    outer.call("portmap", "ADD", sandbox).must()
    assert outer.rules_of_gateways() != []
    outer.call("portmap", "CHECK", sandbox).must()
