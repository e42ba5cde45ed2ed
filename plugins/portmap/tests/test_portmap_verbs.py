"""The verbs of portmap: what they make, what they leave, and what they say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import GO
from cni.testing.wired import Wired

if TYPE_CHECKING:
    from cni.testing import Answer, Host
    from cni.testing.wired import Container

GOLDEN = json.loads(Path(__file__).with_name("data").joinpath("golden.json").read_text())
BACKENDS = ("iptables", "nftables")
WEB = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}

backends = pytest.mark.parametrize("backend", BACKENDS)
interop = pytest.mark.skipif(not (GO / "portmap").exists(), reason="the Go plugins are not installed")


@pytest.fixture
def net(host: Host) -> Wired:
    return Wired(host)


def portmap(net: Wired, verb: str, container: Container, *mappings: dict[str, Any], **conf: Any) -> Answer:
    runtime_config = {"runtimeConfig": {"portMappings": list(mappings)}} if mappings else {}
    options = {key: conf.pop(key) for key in ("bindir", "env") if key in conf}
    return net.call("portmap", verb, container, {**runtime_config, **conf}, **options)


def warm_up(net: Wired, backend: str) -> None:
    """Make what stays: tables, chains and rules that all containers share."""
    other = replace(net.container(9), container_id="other")
    portmap(net, "ADD", other, {**WEB, "hostPort": 9}, backend=backend).must()
    portmap(net, "DEL", other, {**WEB, "hostPort": 9}, backend=backend).must()


def rules(host: Host, program: str) -> list[str]:
    lines = host.run([f"{program}-save", "-t", "nat"]).splitlines()
    return [line for line in lines if line.startswith("-A")]


def named_first(lines: list[str]) -> list[str]:
    """Move what a container publishes on one address of the host before what it publishes on all."""
    start = next(at for at, line in enumerate(lines) if line.startswith("-A CNI-DN-"))
    end = start + sum(line.startswith("-A CNI-DN-") for line in lines)
    return [*lines[:start], *sorted(lines[start:end], key=lambda line: " -d " not in line), *lines[end:]]


@pytest.mark.parametrize("by", ["ours", "go"])
def test_the_rules_are_those_of_the_go_plugin(net: Wired, by: str) -> None:
    c1 = replace(net.container(), container_id="cid1")
    conf = {"backend": "iptables"} if by == "ours" else {"bindir": GO}
    portmap(net, "ADD", c1, *GOLDEN["mappings"], **conf).must()
    for program in ("iptables", "ip6tables"):
        found = rules(net.host, program)
        kept = [line for line in found if "CNI-HOSTPORT-GATEWAYS" not in line and "CNI-GW-" not in line]
        assert kept == (named_first(GOLDEN[program]) if by == "ours" else GOLDEN[program])
        # Ours has more, behind which nothing is published for what the network sends to its gateway.
        assert len(found) - len(kept) == (3 if by == "ours" else 0)


@backends
def test_the_result_is_passed_on_as_it_is(net: Wired, backend: str) -> None:
    c1 = net.container()
    for mappings in ([WEB], []):
        answer = portmap(net, "ADD", c1, *mappings, backend=backend).must()
        # An empty member says as much as a missing one.
        assert answer == {key: value for key, value in c1.prev_result.items() if value}


@backends
@pytest.mark.parametrize("runtime_tells", [True, False])
def test_del_leaves_nothing_of_the_container(net: Wired, backend: str, *, runtime_tells: bool) -> None:
    c1 = net.container()
    warm_up(net, backend)
    before = net.host.snapshot()
    portmap(net, "ADD", c1, *GOLDEN["mappings"], backend=backend).must()
    assert before.differences(net.host.snapshot())
    mappings = GOLDEN["mappings"] if runtime_tells else []
    portmap(net, "DEL", c1, *mappings).must()
    assert before.differences(net.host.snapshot()) == []
    portmap(net, "DEL", c1, *mappings).must()


@backends
def test_del_needs_neither_netns_nor_result(net: Wired, backend: str) -> None:
    c1 = net.container()
    warm_up(net, backend)
    before = net.host.snapshot()
    portmap(net, "ADD", c1, WEB, backend=backend).must()
    for netns in ("", "/run/netns/gone"):
        conf = {"cniVersion": "0.3.1", "name": "net1", "type": "portmap"}
        net.host.plugin("portmap", "DEL", conf, netns=netns, container_id="c1").must()
        assert before.differences(net.host.snapshot()) == []


def test_del_of_what_never_was_succeeds_everywhere(net: Wired) -> None:
    c1 = net.container()
    before = net.host.snapshot()
    portmap(net, "DEL", c1, WEB).must()
    assert before.differences(net.host.snapshot()) == []


@backends
def test_add_twice_makes_nothing_twice(net: Wired, backend: str) -> None:
    c1 = net.container()
    portmap(net, "ADD", c1, *GOLDEN["mappings"], backend=backend).must()
    before = net.host.snapshot()
    portmap(net, "ADD", c1, *GOLDEN["mappings"], backend=backend).must()
    assert before.differences(net.host.snapshot()) == []


@backends
def test_a_failed_add_leaves_no_trace(net: Wired, backend: str) -> None:
    """The rules of the first family are refused, or of the second: none of either stay."""
    c1 = net.container()
    before = net.host.snapshot()
    wrong = {
        "iptables": {"conditionsV6": ["-m", "nosuchmatch"]},
        "nftables": {"conditionsV6": ["ip6", "saddr", "nonsense"]},
    }[backend]
    answer = portmap(net, "ADD", c1, WEB, backend=backend, **wrong)
    assert answer.code != 0
    assert answer.code != 999
    assert before.differences(net.host.snapshot()) == []


def test_an_answer_that_nobody_reads_undoes_the_add(net: Wired) -> None:
    c1 = net.container()
    before = net.host.snapshot()
    conf = {"cniVersion": "1.0.0", "name": "net1", "type": "portmap", "prevResult": c1.prev_result}
    conf |= {"runtimeConfig": {"portMappings": [WEB]}, "backend": "iptables"}
    variables = [f"{name}={value}" for name, value in _variables(c1, net.host).items()]
    full = ["sh", "-c", f"exec {net.host.bindir}/portmap > /dev/full"]
    net.host.run(["env", *variables, *full], json.dumps(conf), check=False)
    assert before.differences(net.host.snapshot()) == []


def _variables(container: Container, host: Host) -> dict[str, str]:
    return {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": container.container_id,
        "CNI_NETNS": container.sandbox.path,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(host.bindir),
    }


@backends
def test_a_taken_port_is_refused_and_the_holder_named(net: Wired, backend: str) -> None:
    c1, c2 = net.container(1), net.container(2)
    portmap(net, "ADD", c1, WEB, backend=backend).must()
    before = net.host.snapshot()
    for host_ip in ("", "192.0.2.1", "::"):
        answer = portmap(net, "ADD", c2, {**WEB, "hostIP": host_ip}, backend=backend)
        assert answer.code == 103
        assert '8080/tcp is already published by container "c1"' in answer.msg
    assert before.differences(net.host.snapshot()) == []
    portmap(net, "ADD", c2, {**WEB, "protocol": "udp"}, backend=backend).must()
    portmap(net, "DEL", c1, WEB).must()
    portmap(net, "ADD", c2, WEB, backend=backend).must()


@backends
def test_a_port_of_a_dead_container_is_taken_over(net: Wired, backend: str) -> None:
    c1, c2 = net.container(1), net.container(2)
    portmap(net, "ADD", c1, WEB, backend=backend).must()
    c1.sandbox.delete()
    portmap(net, "ADD", c2, WEB, backend=backend).must()
    with c2.sandbox.serve(80):
        assert net.host.reaches("127.0.0.1", 8080, timeout_s=10)
    portmap(net, "DEL", c1, WEB).must()
    with c2.sandbox.serve(80):
        assert net.host.reaches("127.0.0.1", 8080, timeout_s=10)


@backends
def test_del_of_one_network_keeps_the_ports_of_the_other(host: Host, backend: str) -> None:
    """Runtimes publish the same ports for every network of a container."""
    from ipaddress import IPv4Network, IPv6Network

    one = Wired(host)
    two = Wired(host, "net2", "cni1", IPv4Network("10.23.0.0/16"), IPv6Network("fd00:23::/64"))
    c1 = one.container(1)
    c2 = replace(two.container(2), container_id="c1")
    portmap(one, "ADD", c1, WEB, backend=backend).must()
    portmap(two, "ADD", c2, WEB, backend=backend).must()
    portmap(one, "DEL", c1, WEB).must()
    with c2.sandbox.serve(80):
        assert host.reaches("127.0.0.1", 8080, timeout_s=10)


@backends
def test_check_says_what_differs(net: Wired, backend: str) -> None:
    c1 = net.container(hairpin=False)
    portmap(net, "ADD", c1, WEB, backend=backend).must()
    answer = portmap(net, "CHECK", c1, WEB, backend=backend)
    answer.must()
    assert "hairpinMode is off on vethcni01" in answer.stderr
    answer = portmap(net, "CHECK", c1, {**WEB, "hostPort": 8081}, backend=backend)
    assert answer.code == 104
    assert "8081" in answer.msg + answer.json["details"]
    assert "hairpinMode is off" in answer.json["details"]
    net.host.run(["sysctl", "-q", "-w", "net.ipv4.conf.cni0.route_localnet=0"])
    answer = portmap(net, "CHECK", c1, WEB, backend=backend)
    assert answer.msg.startswith("could not check net/ipv4/conf/cni0/route_localnet is 0, not 1")


def test_check_names_the_missing_rule(net: Wired) -> None:
    c1 = replace(net.container(), container_id="cid1")
    portmap(net, "ADD", c1, WEB, backend="iptables").must()
    net.host.run(["iptables", "-t", "nat", "-D", "CNI-DN-e8f6f419596f7f47b3468", "4"])
    answer = portmap(net, "CHECK", c1, WEB, backend="iptables")
    assert answer.code == 104
    assert answer.msg.startswith(
        "could not check ipv4 dnat: rule -A CNI-DN-e8f6f419596f7f47b3468 -p tcp -m tcp"
    )
    assert "not found" in answer.msg
    portmap(net, "DEL", c1).must()
    answer = portmap(net, "CHECK", c1, WEB, backend="iptables")
    assert answer.msg == (
        "could not check ipv4 dnat: chain CNI-DN-e8f6f419596f7f47b3468 not found in iptables table nat"
    )


@backends
def test_gc_removes_what_is_not_valid(net: Wired, backend: str) -> None:
    c1, c2 = net.container(1), net.container(2)
    portmap(net, "ADD", c1, WEB, backend=backend).must()
    before = net.host.snapshot()
    portmap(net, "ADD", c2, {**WEB, "hostPort": 9090}, backend=backend).must()
    conf: dict[str, Any] = {"cniVersion": "1.1.0", "name": "net1", "type": "portmap"}
    net.host.plugin("portmap", "GC", conf).must()
    assert before.differences(net.host.snapshot())
    conf["cni.dev/valid-attachments"] = [{"containerID": "c1", "ifname": "eth0"}]
    net.host.plugin("portmap", "GC", {**conf, "name": "net2"}).must()
    assert before.differences(net.host.snapshot())
    net.host.plugin("portmap", "GC", conf).must()
    assert before.differences(net.host.snapshot()) == []
    net.host.plugin("portmap", "GC", {**conf, "cni.dev/valid-attachments": None}).must()
    with c1.sandbox.serve(80):
        assert not net.host.reaches("127.0.0.1", 8080)


FLUSHES = {
    "iptables": ("iptables", "iptables -t nat -F; ip6tables -t nat -F"),
    "nftables": ("nftables", "nft flush ruleset"),
    "nftables, rules alone": ("nftables", "nft flush table ip pycni; nft flush table ip6 pycni"),
}


@pytest.mark.parametrize(("backend", "flush"), FLUSHES.values(), ids=FLUSHES)
def test_status_is_51_where_published_ports_lead_nowhere(net: Wired, backend: str, flush: str) -> None:
    c1 = net.container()
    conf = {"cniVersion": "1.1.0", "name": "net1", "type": "portmap", "backend": backend}
    portmap(net, "ADD", c1, WEB, backend=backend).must()
    net.host.plugin("portmap", "STATUS", conf).must()
    net.host.run(["sh", "-c", flush])
    answer = net.host.plugin("portmap", "STATUS", conf)
    assert (answer.code, answer.msg) == (51, "published ports lead nowhere of: c1 eth0")
    # The dead need no ports.
    c1.sandbox.delete()
    net.host.plugin("portmap", "STATUS", conf).must()


CLAIMS = {
    "a port": "rm /run/pycni/hostports/tcp-8080",
    "a holder": "echo [] > /run/pycni/hostports/tcp-8080",
    "the namespace": 'sed -i \'s/"identity": .[0-9]*/"identity": [1/\' /run/pycni/hostports/by-owner/*',
    "a port of the record": "sed -i 's/8080/8090/' /run/pycni/hostports/by-owner/*",
}


@pytest.mark.parametrize("damage", CLAIMS.values(), ids=CLAIMS)
def test_check_compares_the_claims(net: Wired, damage: str) -> None:
    c1 = net.container()
    portmap(net, "ADD", c1, WEB, backend="nftables").must()
    net.host.run(["sh", "-c", damage])
    answer = portmap(net, "CHECK", c1, WEB, backend="nftables")
    assert answer.code == 104
    assert any(word in answer.msg for word in ("claim", "holder", "ledger"))


def test_check_names_all_that_differs(net: Wired) -> None:
    c1 = net.container()
    portmap(net, "ADD", c1, WEB, {**WEB, "hostPort": 8081}, backend="nftables").must()
    net.host.run(["nft", "flush", "map", "ip", "pycni", "ports"])
    net.host.run(["sysctl", "-q", "-w", "net.ipv4.conf.cni0.route_localnet=0"])
    net.host.run(["rm", "/run/pycni/hostports/tcp-8081"])
    answer = portmap(net, "CHECK", c1, WEB, {**WEB, "hostPort": 8081}, backend="nftables")
    told = f"{answer.msg}; {answer.json['details']}"
    for each in ("port 8080/tcp is not in", "port 8081/tcp is not in", "route_localnet is 0", "tcp-8081"):
        assert each in told


@backends
def test_gc_forgets_flows_to_udp_ports_that_the_ledger_does_not_know(net: Wired, backend: str) -> None:
    c1 = net.container()
    mapping = {"hostPort": 5353, "containerPort": 53, "protocol": "udp"}
    portmap(net, "ADD", c1, mapping, backend=backend).must()
    peer = net.host.outside
    with c1.sandbox.serve(53, "udp"):
        assert peer.sandbox.dial(peer.host_address, 5353, "udp", timeout_s=10)
    tracked = ["conntrack", "-L", "-p", "udp", "--orig-port-dst", "5353"]
    if net.host.place.run(["which", "conntrack"], check=False).returncode:
        tracked = ["cat", "/proc/net/nf_conntrack"]
    net.host.run(["rm", "-r", "/run/pycni/hostports"])
    conf = {"cniVersion": "1.1.0", "name": "net1", "type": "portmap", "cni.dev/valid-attachments": []}
    net.host.plugin("portmap", "GC", conf).must()
    assert "dport=5353" not in net.host.run(tracked)


@backends
def test_status_tells_whether_the_backend_works(host: Host, backend: str) -> None:
    conf = {"cniVersion": "1.1.0", "name": "net1", "type": "portmap", "backend": backend}
    host.plugin("portmap", "STATUS", conf).must()


def test_status_is_50_where_the_backend_cannot_work(host: Host) -> None:
    host.run(["sh", "-c", "mkdir /run/empty; mount --bind /run/empty /usr/sbin"])
    conf = {"cniVersion": "1.1.0", "name": "net1", "type": "portmap", "backend": "iptables"}
    answer = host.plugin("portmap", "STATUS", conf)
    assert answer.code == 50
    assert answer.msg == "the portmap backend iptables is not usable here"
    assert "iptables is not installed" in answer.json["details"]


@backends
def test_no_path_is_needed(net: Wired, backend: str) -> None:
    c1 = net.container()
    portmap(net, "ADD", c1, WEB, backend=backend, env={"PATH": ""}).must()
    portmap(net, "DEL", c1, WEB, backend=backend, env={"PATH": ""}).must()


def test_add_must_be_chained(net: Wired) -> None:
    answer = portmap(net, "ADD", net.container(), WEB, prevResult=None)
    assert (answer.code, answer.msg) == (7, "must be called as chained plugin")
    answer = portmap(net, "CHECK", net.container(2), WEB, prevResult=None)
    assert (answer.code, answer.msg) == (7, "Required prevResult missing")


def test_a_port_on_ipv6_localhost_gets_a_note(net: Wired) -> None:
    answer = portmap(net, "ADD", net.container(), {**WEB, "hostIP": "::1"})
    answer.must()
    assert "on ::1 cannot be reached" in answer.stderr


@interop
@pytest.mark.interop
@pytest.mark.parametrize(("adding", "removing"), [(GO, None), (None, GO)])
def test_either_suite_checks_and_removes_what_the_other_made(
    net: Wired, adding: Path | None, removing: Path | None
) -> None:
    c1 = net.container()
    warm_up(net, "iptables")
    before = net.host.snapshot()
    mappings = GOLDEN["mappings"]
    keys = {"backend": "iptables"}
    portmap(net, "ADD", c1, *mappings, bindir=adding, **keys).must()
    # Old releases of the Go plugin compare the rules of both families with those wanted for either.
    net.host.run(["sh", "-c", "mkdir /run/only4; ln -s /usr/sbin/iptables* /run/only4"])
    only4 = replace(c1, prev_result={**c1.prev_result, "ips": c1.prev_result["ips"][:1]})
    portmap(
        net, "CHECK", only4, *mappings, bindir=removing, env={"PATH": "/run/only4:/usr/bin"}, **keys
    ).must()
    net.host.run(["rm", "-r", "/run/only4"])
    portmap(net, "DEL", c1, *mappings, bindir=removing, **keys).must()
    portmap(net, "DEL", c1, *mappings).must()
    assert before.differences(net.host.snapshot()) == []


@interop
@pytest.mark.interop
def test_we_check_and_remove_both_families_of_go(net: Wired) -> None:
    c1 = net.container()
    warm_up(net, "iptables")
    before = net.host.snapshot()
    portmap(net, "ADD", c1, *GOLDEN["mappings"], bindir=GO).must()
    portmap(net, "CHECK", c1, *GOLDEN["mappings"], backend="iptables").must()
    portmap(net, "DEL", c1).must()
    assert before.differences(net.host.snapshot()) == []
