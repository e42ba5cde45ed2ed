"""Each suite checks and detaches the attachments of the other: ours and Debian's Go plugins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import GO
from tests.support import scene

if TYPE_CHECKING:
    from cni.testing import Answer, Host, Sandbox

pytestmark = [
    pytest.mark.modes("warm"),
    pytest.mark.interop,
    scene.needs_go,
]

V4 = {"subnet": "10.88.0.0/24"}
V6 = {"subnet": "fd88::/64"}
RANGES = {"v4": [[V4]], "dual": [[V4], [V6]]}
ROUTES = {"v4": [{"dst": "0.0.0.0/0"}], "dual": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}
SUITES = {"ours": None, "go": GO}
WAYS = [("ours", "go"), ("go", "ours")]


@dataclass
class Runtime:
    """A runtime of two plugins, each call of which says whose executables do it."""

    host: Host
    families: str
    version: str
    host_port: int = 8080

    @property
    def plugins(self) -> list[dict[str, Any]]:
        ipam = {"type": scene.IPAM, "ranges": RANGES[self.families], "routes": ROUTES[self.families]}
        port = {"hostPort": self.host_port, "containerPort": 80, "protocol": "tcp"}
        common = {"cniVersion": self.version, "name": "net1"}
        bridge = {"type": scene.INTERFACE, "bridge": "br0", "isGateway": True, "ipMasq": True, "ipam": ipam}
        # The Go plugins of this release know no other backend, and refuse no key that they do not know.
        portmap = {"type": scene.PORTS, "backend": "iptables", "runtimeConfig": {"portMappings": [port]}}
        return [common | bridge | {"ipMasqBackend": "iptables"}, common | portmap]

    def add(self, suite: str, sandbox: Sandbox) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for conf in self.plugins:
            previous = {"prevResult": result} if result else {}
            result = self._call(suite, "ADD", conf | previous, sandbox, sandbox.path)
        return result

    def check(self, suite: str, sandbox: Sandbox, result: dict[str, Any]) -> None:
        for conf in self.plugins:
            answer = self._ask(suite, "CHECK", conf | {"prevResult": result}, sandbox, sandbox.path)
            if suite == "go" and conf["type"] == scene.PORTS:
                # This release looks for IPv4 addresses in IPv6 rules, in what it has made itself too. It
                # gets there only when it has found the IPv4 rules as it wants them.
                assert answer.msg.startswith("could not check ipv6 dnat: "), answer
            else:
                answer.must()

    def delete(self, suite: str, sandbox: Sandbox, result: dict[str, Any], netns: str = "") -> None:
        for conf in reversed(self.plugins):
            self._call(suite, "DEL", conf | {"prevResult": result}, sandbox, netns)

    def _call(
        self, suite: str, verb: str, conf: dict[str, Any], sandbox: Sandbox, netns: str
    ) -> dict[str, Any]:
        return self._ask(suite, verb, conf, sandbox, netns).must()

    def _ask(self, suite: str, verb: str, conf: dict[str, Any], sandbox: Sandbox, netns: str) -> Answer:
        return self.host.plugin(
            conf["type"], verb, conf, netns=netns, container_id=sandbox.name, bindir=SUITES[suite]
        )


def _addresses(result: dict[str, Any]) -> list[str]:
    return [str(ip["address"]).split("/")[0] for ip in result["ips"]]


def _prime(runtime: Runtime, name: str) -> None:
    """Make the bridge and the shared chains, which both suites leave for the next container."""
    sandbox = runtime.host.sandbox(name)
    for suite in SUITES:
        result = runtime.add(suite, sandbox)
        runtime.delete(suite, sandbox, result, sandbox.path)


@pytest.mark.parametrize("families", RANGES)
@pytest.mark.parametrize("version", ["0.4.0", "1.0.0"])
@pytest.mark.parametrize(("adds", "removes"), WAYS)
def test_each_suite_removes_attachments_of_the_other(
    host: Host, adds: str, removes: str, version: str, families: str
) -> None:
    outside = host.outside
    runtime = Runtime(host, families, version)
    _prime(runtime, "primer")
    sandbox = host.sandbox("c1")
    before = host.snapshot()
    result = runtime.add(adds, sandbox)
    runtime.check(removes, sandbox, result)
    with sandbox.serve(80):
        assert outside.sandbox.dial(outside.host_address, 8080)
        assert families == "v4" or outside.sandbox.dial(outside.host_address6, 8080)
    with outside.sandbox.serve(81):
        assert sandbox.dial(outside.address, 81).address == outside.host_address
    runtime.delete(removes, sandbox, result, sandbox.path)
    left = before.differences(host.snapshot())
    # Go's plugins know nothing of our list of host ports; its entries end with the namespace.
    assert [line for line in left if removes == "ours" or not line.startswith("+ files: /run/pycni/")] == []


def test_a_host_port_is_free_again_after_the_other_suites_del(host: Host) -> None:
    runtime = Runtime(host, "v4", "1.0.0")
    sandbox = host.sandbox("c1")
    result = runtime.add("ours", sandbox)
    runtime.delete("go", sandbox, result, sandbox.path)
    sandbox.delete()
    assert runtime.add("ours", host.sandbox("c2"))


@pytest.mark.parametrize(("adds", "removes"), WAYS)
def test_the_other_suites_check_sees_a_missing_address(host: Host, adds: str, removes: str) -> None:
    runtime = Runtime(host, "v4", "1.0.0")
    sandbox = host.sandbox("c1")
    result = runtime.add(adds, sandbox)
    sandbox.run(["ip", "addr", "flush", "dev", "eth0"])
    bridge = runtime.plugins[0] | {"prevResult": result}
    answer = host.plugin(
        scene.INTERFACE, "CHECK", bridge, netns=sandbox, container_id="c1", bindir=SUITES[removes]
    )
    assert not answer.ok


def test_ours_cleans_up_after_go_without_a_namespace(host: Host) -> None:
    """Go's own DEL leaves the masquerading rules when the runtime passes no namespace."""
    runtime = Runtime(host, "dual", "1.0.0")
    _prime(runtime, "primer")
    before = host.snapshot()
    sandbox = host.sandbox("c1")
    result = runtime.add("go", sandbox)
    sandbox.delete()
    runtime.delete("ours", sandbox, result)
    assert before.differences(host.snapshot()) == []


def test_containers_of_both_suites_reach_each_other(host: Host) -> None:
    runtime = Runtime(host, "dual", "1.0.0")
    one, two = host.sandbox("one"), host.sandbox("two")
    addresses = _addresses(runtime.add("ours", one))
    runtime.host_port = 8081
    runtime.add("go", two)
    with one.serve(80):
        for address in addresses:
            assert two.dial(address, 80)


def test_both_suites_work_on_one_pool(host: Host) -> None:
    runtime = Runtime(host, "dual", "1.0.0")
    sandboxes = [host.sandbox(f"c{number}") for number in range(6)]
    taken: list[str] = []
    results = []
    for number, sandbox in enumerate(sandboxes):
        runtime.host_port = 8000 + number
        results.append(runtime.add(("ours", "go")[number % 2], sandbox))
        taken += _addresses(results[-1])
    assert len(set(taken)) == 12
    pool = Path("/var/lib/cni/networks/net1")
    assert {path for path in host.run(["ls", str(pool)]).split() if path[0] in "1f"} == set(taken)
    for number, (sandbox, result) in enumerate(zip(sandboxes, results, strict=True)):
        runtime.host_port = 8000 + number
        runtime.delete(("go", "ours")[number % 2], sandbox, result, sandbox.path)
    assert not [path for path in host.run(["ls", str(pool)]).split() if path[0] in "1f"]
