"""Problems of the Go plugins with firewall rules, by the rows of docs/pain-points.md."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import GO, Host, warm, why_no_namespaces
from tests.netns.firewall_hosts import NFT, VARIANTS, equipped, plain, rules, suffixed
from tests.support import scene

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cni.testing import Answer, Sandbox

HOSTS: dict[str, Mapping[str, str]] = {
    "iptables-nft": plain("nft"),
    "iptables-legacy": plain("legacy") | suffixed("legacy"),
    "nftables": NFT,
}
SUBNETS = ("10.88.0.0/16", "fd88::/64")
ROUTES = ("0.0.0.0/0", "::/0")


@pytest.fixture
def host(served_bindir: Path) -> Iterator[Host]:
    """Yield a host whose plugins a warm server serves, as on a node."""
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    with Host(served_bindir) as host:
        warm.set_up(host.place, workers=2)
        yield host


class Calls:
    """Calls of bridge (host-local, masquerading) and portmap for containers, results handed on."""

    def __init__(self, host: Host, families: int = 2) -> None:
        self.host = host
        self.ipam = {
            "type": scene.IPAM,
            "ranges": [[{"subnet": subnet}] for subnet in SUBNETS[:families]],
            "routes": [{"dst": route} for route in ROUTES[:families]],
        }
        self.bridge_keys: dict[str, Any] = {"bridge": "br0", "isGateway": True, "ipMasq": True}
        self.portmap_keys: dict[str, Any] = {}
        self.results: dict[str, dict[str, Any]] = {}

    def add(self, sandbox: Sandbox, *ports: int, bindir: Path | None = None) -> Answer:
        """Return the answer of portmap, or of bridge when that failed; without ports bridge is alone."""
        answer = self._call("ADD", sandbox, self._bridge(), bindir)
        if answer.ok and ports:
            answer = self._call("ADD", sandbox, self._portmap(*ports) | {"prevResult": answer.json}, bindir)
        self.results[sandbox.name] = answer.json
        return answer

    def delete(self, sandbox: Sandbox, *ports: int) -> list[Answer]:
        previous = {"prevResult": self.results[sandbox.name]}
        confs = [*([self._portmap(*ports)] if ports else []), self._bridge()]
        return [self._call("DEL", sandbox, conf | previous, None) for conf in confs]

    def _bridge(self) -> dict[str, Any]:
        return {
            "cniVersion": "1.0.0",
            "name": "net1",
            "type": scene.INTERFACE,
            "ipam": self.ipam,
        } | self.bridge_keys

    def _portmap(self, *ports: int) -> dict[str, Any]:
        mappings = [{"hostPort": port, "containerPort": port, "protocol": "tcp"} for port in ports]
        conf = {"cniVersion": "1.0.0", "name": "net1", "type": scene.PORTS}
        return conf | {"runtimeConfig": {"portMappings": mappings}} | self.portmap_keys

    def _call(self, verb: str, sandbox: Sandbox, conf: dict[str, Any], bindir: Path | None) -> Answer:
        return self.host.plugin(
            conf["type"],
            verb,
            conf,
            netns=sandbox,
            container_id=sandbox.name,
            bindir=bindir,
        )


def leases(host: Host) -> list[str]:
    return [
        name
        for name in host.run(["ls", "/var/lib/cni/networks/net1"]).split()
        if name != "lock" and not name.startswith("last_reserved_ip")
    ]


FLUSHES = {
    "chains emptied": "for each in iptables ip6tables; do $each-{0} -t nat -F; done",
    "tables emptied": "for each in iptables ip6tables; do $each-{0} -t nat -F; $each-{0} -t nat -X; done",
    "all of it": "nft flush ruleset; for each in iptables ip6tables; do $each-legacy -t nat -F; done",
}


@pytest.mark.parametrize(
    ("kind", "flush"),
    [
        ("iptables-nft", "chains emptied"),
        ("iptables-legacy", "tables emptied"),
        *((kind, "all of it") for kind in HOSTS),
    ],
)
def test_pain_16_del_succeeds_when_a_firewall_has_been_flushed(host: Host, kind: str, flush: str) -> None:
    calls, c1, c2 = Calls(host), host.sandbox("c1"), host.sandbox("c2")
    with equipped(host, HOSTS[kind]):
        calls.add(c1, 8080).must()
        calls.add(c2, 8081).must()
    host.run(["sh", "-c", FLUSHES[flush].format(kind.removeprefix("iptables-").replace("nftables", "nft"))])
    with equipped(host, HOSTS[kind]):
        answers = [*calls.delete(c1, 8080), *calls.delete(c2, 8081)]
        assert [answer.stdout for answer in answers if not answer.ok] == []
        # And the next container is as well off as the first one.
        calls.add(c1, 8080).must()
        with c1.serve(8080):
            outside = host.outside
            assert outside.sandbox.dial(outside.host_address, 8080)
        assert all(answer.ok for answer in calls.delete(c1, 8080))
    assert leases(host) == []
    assert [rule for variant in VARIANTS for rule in rules(host, variant, '\\"c1\\"')] == []


def test_pain_17_an_iptables_that_fails_keeps_nobodys_address(host: Host) -> None:
    calls, c1 = Calls(host), host.sandbox("c1")
    with equipped(host, plain("legacy")):
        calls.add(c1, 8080).must()
    script = "printf '#!/bin/sh\\necho broken >&2; exit 4\\n' > /run/broken; chmod +x /run/broken"
    host.run(["sh", "-c", script])
    broken = dict.fromkeys(plain("legacy") | suffixed("legacy"), "../broken")
    with equipped(host, broken):
        portmap, bridge = calls.delete(c1, 8080)
    assert (portmap.code, bridge.code) == (101, 101)
    assert "broken" in portmap.msg
    assert leases(host) == []
    assert c1.links() == ["lo"]
    with equipped(host, plain("legacy")):
        assert all(answer.ok for answer in calls.delete(c1, 8080))
    assert rules(host, "legacy", '\\"c1\\"') == []


@pytest.mark.parametrize("kind", HOSTS)
def test_pain_27_an_add_that_fails_leaves_the_port_of_another_alone(host: Host, kind: str) -> None:
    calls, c1, c2 = Calls(host, families=1), host.sandbox("c1"), host.sandbox("c2")
    outside = host.outside
    with equipped(host, HOSTS[kind]):
        calls.add(c1, 8080).must()
        with c1.serve(8080):
            # The port is taken; then, in the middle of the work, a condition that no program understands.
            assert calls.add(c2, 8081, 8080).code == 103
            assert outside.sandbox.dial(outside.host_address, 8080)
            assert [answer.status for answer in calls.delete(c2, 8081, 8080)] == [0, 0]
            assert outside.sandbox.dial(outside.host_address, 8080)
            calls.portmap_keys["conditionsV4"] = ["--no-such-option"]
            assert calls.add(c2, 8081).code in {7, 101}
            calls.portmap_keys.clear()
            assert [answer.status for answer in calls.delete(c2, 8081)] == [0, 0]
            assert outside.sandbox.dial(outside.host_address, 8080)


def logged(programs: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """Return programs that note each start in /run/started, and the script that makes them."""
    noting = "printf '#!/bin/sh\\necho %s >> /run/started\\nexec /run/all/%s \"$@\"\\n'"
    making = [f"{noting} {name} {program} > /run/log/{name}" for name, program in programs.items()]
    script = "\n".join(["mkdir -p /run/log", ": > /run/started", *making, "chmod +x /run/log/*"])
    return {name: f"../log/{name}" for name in programs}, script


def started(host: Host) -> list[str]:
    return host.run(["cat", "/run/started"]).split()


@pytest.mark.parametrize("kind", HOSTS)
def test_pain_29_an_add_of_20_ports_starts_few_programs(host: Host, kind: str) -> None:
    """The Go plugins start 45 for 5 ports of portmap alone."""
    calls, c1, c2 = Calls(host, families=1), host.sandbox("c1"), host.sandbox("c2")
    programs, script = logged(dict(HOSTS[kind]))
    host.run(["sh", "-c", script])
    with equipped(host, programs):
        calls.add(c1, 7999).must()
        host.run(["sh", "-c", ": > /run/started"])
        calls.add(c2, *range(8000, 8020)).must()
        in_add = started(host)
        host.run(["sh", "-c", ": > /run/started"])
        assert all(answer.ok for answer in calls.delete(c2, *range(8000, 8020)))
        in_del = started(host)
    assert len(in_add) <= 4, in_add
    # Legacy rules are listed, then removed, for masquerading and for ports.
    assert len(in_del) <= 4, in_del


@pytest.mark.interop
@scene.needs_go
@pytest.mark.parametrize(
    ("variant", "share"),
    [
        pytest.param("nft", 1, id="nft, all ours"),
        pytest.param("nft", 2, id="nft, every second one Go's"),
        pytest.param("legacy", 2, id="legacy, every second one Go's"),
    ],
)
def test_pain_30_forty_first_adds_at_once_leave_every_shared_rule_once(
    host: Host, variant: str, share: int
) -> None:
    calls = Calls(host, families=1)
    sandboxes = [host.sandbox(f"c{number}") for number in range(41)]

    def add(number: int) -> Answer:
        bindir = GO if number % share else None
        return calls.add(sandboxes[number], 8000 + number, bindir=bindir)

    with equipped(host, plain(variant)):
        with ThreadPoolExecutor(10) as pool:
            answers = list(pool.map(add, range(40)))
        assert [answer.stdout for answer in answers[::share] if not answer.ok] == []
        # A double that a Go plugin has made last goes with the next ADD.
        add(40).must()
    shared = [rule for rule in rules(host, variant, "CNI-HOSTPORT") if "CNI-DN-" not in rule]
    assert sorted(shared) == sorted(set(shared))
    # Those that the Go plugin makes, and one for the gateway of the network.
    assert len(shared) == 5 + 1
    for number, answer in enumerate(answers):
        if answer.ok:
            assert len(rules(host, variant, f'dnat name: \\"net1\\" id: \\"c{number}\\"')) == 1


def test_pain_34_native_rules_in_a_table_of_iptables_are_told_with_the_way_out(host: Host) -> None:
    host.run(
        ["nft", "-f", "-"],
        """add table ip nat
add set ip nat hidden { type ipv4_addr; }
add chain ip nat POSTROUTING { type nat hook postrouting priority 100; }
add rule ip nat POSTROUTING ip saddr @hidden masquerade""",
    )
    calls, c1, c2 = Calls(host, families=1), host.sandbox("c1"), host.sandbox("c2")
    answer = calls.add(c1, 8080)
    assert "is incompatible, use 'nft' tool" in answer.msg
    assert '"backend": "nftables"' in answer.json["details"]
    calls.bridge_keys["ipMasqBackend"] = calls.portmap_keys["backend"] = "nftables"
    calls.add(c2, 8080).must()
    with c2.serve(8080):
        assert host.outside.sandbox.dial(host.outside.host_address, 8080)
    assert "@hidden" in host.run(["nft", "list", "table", "ip", "nat"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_pain_44_a_configuration_without_rules_gets_none(host: Host, variant: str) -> None:
    calls, c1 = Calls(host), host.sandbox("c1")
    calls.bridge_keys["ipMasq"] = False
    programs, script = logged(dict(plain(variant)) | NFT)
    host.run(["sh", "-c", script])
    with equipped(host, programs):
        calls.add(c1).must()
        assert started(host) == []
    assert json.loads(host.run(["nft", "-j", "list", "ruleset"]))["nftables"][1:] == []
    assert host.run(["cat", "/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"]) == ""
    with equipped(host, programs):
        assert all(answer.ok for answer in calls.delete(c1))
        assert started(host) == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_pain_46_without_ip6tables_an_ipv4_container_is_attached(host: Host, variant: str) -> None:
    calls, c1, c2 = Calls(host, families=1), host.sandbox("c1"), host.sandbox("c2")
    with equipped(host, plain(variant, "iptables")):
        calls.add(c1, 8080).must()
        with c1.serve(8080):
            assert host.outside.sandbox.dial(host.outside.host_address, 8080)
        assert all(answer.ok for answer in calls.delete(c1, 8080))
        # One with an IPv6 address is told what it lacks.
        calls.ipam |= Calls(host).ipam
        answer = calls.add(c2, 8080)
    assert answer.code == 101
    assert "ip6tables is not installed" in answer.msg
