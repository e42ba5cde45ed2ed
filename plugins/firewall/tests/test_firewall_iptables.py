"""The backend iptables beside the Go plugin: the same rules, once, and each removes those of the other."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import GO
from tests.netns.chained_networks import ChainedNetwork, ipv4_only, rules
from tests.netns.firewall_hosts import equipped, plain

if TYPE_CHECKING:
    from cni.testing import Host

Network = partial(ChainedNetwork, "firewall")
pytestmark = pytest.mark.modes("warm")
interop = pytest.mark.skipif(not (GO / "firewall").exists(), reason="the Go plugins are not installed")
_OLD_COMMENT = "CNI firewall plugin rules (ingressPolicy: same-bridge)"
LEGACY = "/run/legacy"
_LINK_LEGACY = f"""mkdir -p {LEGACY}; for name in iptables ip6tables; do for part in '' -save -restore; do
ln -s /usr/sbin/$name-legacy$part {LEGACY}/$name$part; done; done"""


def keys_for(policy: str) -> dict[str, Any]:
    return {"backend": "iptables", "ingressPolicy": policy}


@interop
@pytest.mark.parametrize("policy", ["open", "same-bridge"])
def test_the_rules_are_those_of_the_go_plugin(host: Host, policy: str) -> None:
    network = Network(host, **keys_for(policy))
    ours = network.container(1)
    network.call("ADD", ours).must()
    by_us = _with_one_comment(rules(host))
    network.call("DEL", ours).must()
    host.run(["sh", "-c", "for x in iptables ip6tables; do $x -F; $x -X; done"])
    network.call("ADD", ours, bindir=GO).must()
    assert by_us == _with_one_comment(rules(host))


def _with_one_comment(found: list[str]) -> list[str]:
    """Releases of Go before 1.7 have one comment for all rules about policies."""
    return [line.replace("same-bridge|isolated", "same-bridge") for line in found]


def test_the_rules_of_a_policy_that_came_with_go_1_7(host: Host) -> None:
    network = Network(host, **keys_for("isolated"))
    network.attach()
    bridge = network.net.bridge
    found = [line for line in rules(host, "CNI-ISOLATION") if line.startswith("4 ")]
    comment = '-m comment --comment "CNI firewall plugin rules (ingressPolicy: {})"'
    shared, own = comment.format("same-bridge|isolated"), comment.format("isolated")
    assert found == [
        f"4 -A FORWARD {shared} -j CNI-ISOLATION-STAGE-1",
        f"4 -A CNI-ISOLATION-STAGE-1 -i {bridge} -o {bridge} {own} -j DROP",
        f"4 -A CNI-ISOLATION-STAGE-1 -i {bridge} ! -o {bridge} {own} -j CNI-ISOLATION-STAGE-2",
        f"4 -A CNI-ISOLATION-STAGE-1 {shared} -j RETURN",
        f"4 -A CNI-ISOLATION-STAGE-2 -o {bridge} {shared} -j DROP",
        f"4 -A CNI-ISOLATION-STAGE-2 {shared} -j RETURN",
    ]


@interop
@pytest.mark.parametrize("policy", ["open", "same-bridge"])
@pytest.mark.parametrize("order", ["go first", "ours first"])
def test_an_add_after_that_of_the_other_suite_doubles_no_rule(host: Host, policy: str, order: str) -> None:
    network = Network(host, **keys_for(policy))
    c1 = network.container(1)
    bindirs = [GO, None] if order == "go first" else [None, GO]
    for bindir in bindirs:
        network.call("ADD", c1, bindir=bindir).must()
    found = Counter(rules(host))
    if order == "go first":
        assert [line for line, count in found.items() if count > 1] == []
        assert len(rules(host, "CNI-ISOLATION-STAGE-1")) == (6 if policy == "same-bridge" else 0)
    network.call("CHECK", c1).must()
    for bindir in bindirs:
        network.call("DEL", c1, bindir=bindir).must()
    assert rules(host, c1.address, c1.address6) == []


@interop
@pytest.mark.parametrize("add_by", ["go", "ours"])
def test_del_removes_what_the_other_suite_has_made(host: Host, add_by: str) -> None:
    network = Network(host, backend="iptables")
    c1, c2 = network.container(1), network.container(2)
    by_go, by_us = (GO, None) if add_by == "go" else (None, GO)
    for each in (c1, c2):
        network.call("ADD", each, bindir=by_go).must()
    network.call("CHECK", c1, bindir=by_us).must()
    network.call("DEL", c1, bindir=by_us).must()
    assert rules(host, f"{c1.address}/", f"{c1.address6}/") == []
    assert len(rules(host, f"{c2.address}/", f"{c2.address6}/")) == 4
    network.call("CHECK", c2, bindir=by_go).must()


def test_isolation_goes_with_the_last_container(host: Host) -> None:
    network = Network(host, **keys_for("isolated"))
    c1, c2 = network.attach(1), network.attach(2)
    before = rules(host, f" {network.net.bridge} ")
    assert len(before) == 6
    network.call("DEL", c1).must()
    assert rules(host, f" {network.net.bridge} ") == before
    host.run(["ip", "link", "delete", c1.host_end])
    network.call("DEL", c2).must()
    assert rules(host, f" {network.net.bridge} ") == []


def test_isolation_remains_for_containers_of_the_other_suite(host: Host) -> None:
    network = Network(host, **keys_for("same-bridge"))
    c1 = network.attach(1)
    network.container(2)
    network.call("DEL", c1).must()
    # The third port is of a container that this plugin has not attached.
    assert rules(host, f" {network.net.bridge} ") != []
    host.run(["ip", "link", "delete", network.net.bridge])
    network.gc().must()
    assert rules(host, f" {network.net.bridge} ") == []


@pytest.mark.parametrize("version", ["0.1.0", "0.3.1", "0.4.0", "1.1.0"])
def test_old_lists_work(host: Host, version: str) -> None:
    network = Network(host, 1, "0.4.0", backend="iptables", cniVersion=version)
    c1 = network.container()
    conf = {"prevResult": c1.prev_result | {"cniVersion": version}}
    if version == "0.1.0":
        conf = {"prevResult": {"cniVersion": version, "ip4": {"ip": f"{c1.address}/24"}}}
    network.call("ADD", c1, conf=conf).must()
    assert rules(host, f"{c1.address}/32") != []
    # Before 0.4.0 a runtime sends no prevResult with DEL.
    network.call("DEL", c1, conf={"prevResult": None}).must()
    assert rules(host, f"{c1.address}/32") == []


def test_a_second_add_changes_nothing_and_one_with_other_addresses_replaces(host: Host) -> None:
    network = Network(host, backend="iptables")
    c1 = network.attach(1)
    before = rules(host)
    network.call("ADD", c1).must()
    assert rules(host) == before
    other = [{"address": "10.1.0.99/24"}]
    network.call("ADD", c1, conf={"prevResult": c1.prev_result | {"ips": other}}).must()
    assert rules(host, f"{c1.address}/", f"{c1.address6}/") == []
    assert len(rules(host, "10.1.0.99/32")) == 2


def test_the_administrators_chain_comes_first(host: Host) -> None:
    network = Network(host, backend="iptables", iptablesAdminChainName="MY-RULES")
    c1 = network.attach(1)
    host.run(["iptables", "-A", "MY-RULES", "-s", c1.address, "-j", "DROP"])
    network.attach(2)
    chain = [line for line in rules(host, "-A CNI-FORWARD") if line.startswith("4 ")]
    assert chain[0].endswith("-j MY-RULES")
    assert len(chain) == 5


def test_ipv4_alone_needs_no_ip6tables(host: Host) -> None:
    network = Network(host, backend="iptables")
    c1 = ipv4_only(network.container(1))
    with equipped(host, plain("nft", "iptables")):
        for verb in ("ADD", "CHECK", "DEL"):
            network.call(verb, c1).must()


def test_legacy_iptables(host: Host) -> None:
    host.run(["sh", "-c", _LINK_LEGACY])
    env = {"PATH": f"{LEGACY}:/usr/sbin:/usr/bin:/sbin:/bin"}
    network = Network(host, **keys_for("same-bridge"))
    c1 = network.container(1)
    network.call("ADD", c1, env=env).must()
    network.call("CHECK", c1, env=env).must()
    shown = host.run(["iptables-legacy", "-S"]) + host.run(["ip6tables-legacy", "-S"])
    assert shown.count(f"{c1.address}/32") == 2
    assert shown.count(f"{c1.address6}/128") == 2
    assert shown.count(f"-i {network.net.bridge} ") == 2
    # Another variant is on PATH by now.
    network.call("DEL", c1).must()
    shown = host.run(["iptables-legacy", "-S"]) + host.run(["ip6tables-legacy", "-S"])
    assert c1.address not in shown
    assert c1.address6 not in shown
    assert f"-i {network.net.bridge} " not in shown


def test_rules_with_the_comment_of_old_releases_are_adopted(host: Host) -> None:
    network = Network(host, **keys_for("same-bridge"))
    bridge, comment = network.net.bridge, f'-m comment --comment "{_OLD_COMMENT}"'
    lines = [
        "*filter",
        "-N CNI-ISOLATION-STAGE-1",
        "-N CNI-ISOLATION-STAGE-2",
        f"-A FORWARD {comment} -j CNI-ISOLATION-STAGE-1",
        f"-A CNI-ISOLATION-STAGE-1 -i {bridge} ! -o {bridge} {comment} -j CNI-ISOLATION-STAGE-2",
        f"-A CNI-ISOLATION-STAGE-1 {comment} -j RETURN",
        f"-A CNI-ISOLATION-STAGE-2 -o {bridge} {comment} -j DROP",
        f"-A CNI-ISOLATION-STAGE-2 {comment} -j RETURN",
        "COMMIT\n",
    ]
    host.run(["iptables-restore", "--noflush"], "\n".join(lines))
    before = [line for line in rules(host, "CNI-ISOLATION") if line.startswith("4")]
    c1 = network.attach(1)
    assert [line for line in rules(host, "CNI-ISOLATION") if line.startswith("4")] == before
    network.call("CHECK", c1).must()
    network.call("DEL", c1).must()
    assert rules(host, f" {bridge} ") == []


@pytest.mark.parametrize("name", ["cni+", "a b", "x" * 16, "../x", "-j", "!"])
def test_a_link_that_iptables_would_read_otherwise_is_refused(host: Host, name: str) -> None:
    network = Network(host, **keys_for("same-bridge"))
    c1 = network.container(1)
    interfaces = [{"name": name}, *c1.prev_result["interfaces"][1:]]
    before = host.snapshot()
    answer = network.call("ADD", c1, conf={"prevResult": c1.prev_result | {"interfaces": interfaces}})
    assert answer.code == 7
    assert before.differences(host.snapshot()) == []
