"""The backend nftables, and what isolation leaves on a host: elements, tables, notes."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.faults import TELL, Fault, list_met
from tests.netns.chained_networks import BACKENDS, ChainedNetwork, drop_forwarded, ipv4_only, rules
from tests.netns.firewall_hosts import NFT, equipped

if TYPE_CHECKING:
    from cni.testing import Host

Network = partial(ChainedNetwork, "firewall")
pytestmark = pytest.mark.modes("warm")

FULL: dict[str, Any] = {"isolate": True, "icc": False, "allow": ["net9"]}


def elements(host: Host) -> dict[str, set[str]]:
    """Return the elements of the plugin's tables by set, without comments and empty sets."""
    found = {}
    for item in json.loads(host.run(["nft", "-j", "list", "ruleset"]))["nftables"]:
        if "set" in item and item["set"]["table"] == "pycni_firewall" and item["set"].get("elem"):
            found[item["set"]["name"]] = {_plain(each) for each in item["set"]["elem"]}
    return found


def _plain(element: Any) -> str:
    if isinstance(element, dict):
        return _plain(element["elem"]["val"]) if "elem" in element else ".".join(element["concat"])
    return str(element)


def tables(host: Host) -> list[str]:
    return [line for line in host.run(["nft", "list", "tables"]).splitlines() if "pycni" in line]


def notes(host: Host) -> list[str]:
    """Return the files in which the plugin notes attachments."""
    found = host.run(
        ["sh", "-c", "find /run/pycni/firewall /run/pycni/attachments -type f 2>/dev/null || true"]
    )
    return found.splitlines()


def test_an_attachment_is_elements(host: Host) -> None:
    network = Network(host, backend="nftables", **FULL)
    c1 = network.attach(1)
    bridge = network.net.bridge
    assert elements(host) == {
        "admitted4": {c1.address},
        "admitted6": {c1.address6},
        "links": {bridge},
        "same": {f"{bridge}.{bridge}"},
        "isolated": {bridge},
        "no_icc": {bridge},
        "ports": {c1.host_end},
    }
    c2 = network.attach(2)
    assert elements(host)["admitted4"] == {c1.address, c2.address}
    network.call("DEL", c1).must()
    assert elements(host)["isolated"] == {bridge}
    network.call("DEL", c2).must()
    assert (elements(host), notes(host)) == ({}, [])
    network.gc().must()
    assert tables(host) == []
    assert rules(host) == []


def test_the_cost_of_a_call_is_one_transaction_without_a_child(host: Host) -> None:
    """Also that of the first and of the last container of a network."""
    env = Fault(TELL, "").env
    first = Network(host, 1, backend="nftables", **FULL)
    first.attach(1)
    network = Network(host, 2, backend="nftables", **FULL)
    c1 = network.container(1)
    for verb in ("ADD", "DEL"):
        met = Counter(each.split(" ")[0] for each in list_met(network.call(verb, c1, env=env)))
        # Executables without faults tell nothing.
        assert met["process.started"] == 0
        assert met["nftables.committed"] <= 1


def test_ipv6_is_not_needed(host: Host) -> None:
    network = Network(host, backend="nftables")
    c1 = ipv4_only(network.container(1))
    network.call("ADD", c1).must()
    assert elements(host)["admitted4"] == {c1.address}
    assert "admitted6" not in elements(host)


@pytest.mark.parametrize("backend", BACKENDS)
def test_del_needs_neither_result_nor_namespace_nor_link(host: Host, backend: str) -> None:
    network = Network(host, backend=backend, **FULL)
    c1 = network.attach(1)
    host.run(["ip", "link", "delete", network.net.bridge])
    c1.sandbox.delete()
    for _ in range(2):
        network.call("DEL", c1, conf={"prevResult": None}).must()
    assert (elements(host), notes(host), rules(host, c1.address)) == ({}, [], [])


def test_del_finds_elements_without_a_record(host: Host) -> None:
    network = Network(host, backend="nftables")
    c1, c2 = network.attach(1), network.attach(2)
    host.run(["sh", "-c", "rm -r /run/pycni/attachments"])
    network.call("DEL", c1, conf={"prevResult": None}).must()
    network.call("DEL", c2).must()
    found = elements(host)
    assert "admitted4" not in found
    assert "admitted6" not in found


@pytest.mark.parametrize("backend", BACKENDS)
def test_gc_removes_what_is_not_valid(host: Host, backend: str) -> None:
    first, second = (Network(host, number, backend=backend, **FULL) for number in (1, 2))
    a, b, c = first.attach(1), first.attach(2), second.attach(1)
    planned = first.gc(a, verb="PYCNI_GC_PLAN").must()["stale"]
    assert {each["containerID"] for each in planned if "containerID" in each} == {b.container_id}
    first.gc(a).must()
    for each in (a, c):
        first_or_second = first if each is a else second
        first_or_second.call("CHECK", each).must()
    if backend == "iptables":
        assert rules(host, f"{b.address}/") == []
    else:
        assert b.address not in elements(host)["admitted4"]
    assert elements(host)["ports"] == {a.host_end, c.host_end}
    first.gc().must()
    assert elements(host)["isolated"] == {second.net.bridge}
    assert first.gc(verb="PYCNI_GC_PLAN").must()["stale"] == []
    second.gc().must()
    assert (elements(host), notes(host), tables(host)) == ({}, [], [])


def test_gc_removes_links_that_do_not_exist(host: Host) -> None:
    first, second = (Network(host, number, backend="nftables", **FULL) for number in (1, 2))
    first.attach(1)
    c = second.attach(1)
    host.run(["sh", "-c", "rm -r /run/pycni/attachments /run/pycni/firewall"])
    host.run(["ip", "link", "delete", first.net.bridge])
    second.gc(c).must()
    found = elements(host)
    assert first.net.bridge not in found["links"]
    assert second.net.bridge in found["links"]


@pytest.mark.parametrize(
    ("damage", "wanted"),
    [
        ("nft flush ruleset", "chain forward of nftables table inet pycni_firewall does not exist"),
        ("nft flush chain inet pycni_firewall forward", "lacks rules"),
        ("nft delete table bridge pycni_firewall", "table bridge pycni_firewall does not exist"),
        ("nft flush set inet pycni_firewall admitted4", "admission of 10.1.0.22 is not in nftables"),
        ("nft flush set inet pycni_firewall isolated", "isolated cni1 is not in nftables"),
        ("nft flush set bridge pycni_firewall ports", "separation of vethcni121 is not in nftables"),
    ],
)
def test_check_finds_and_repair_restores(host: Host, damage: str, wanted: str) -> None:
    network, other = (Network(host, number, backend="nftables", **FULL) for number in (1, 2))
    c1 = network.attach(1)
    o1 = other.attach(1)
    before = elements(host)
    assert network.call("PYCNI_REPAIR", c1).must() == {"repaired": [], "failed": []}
    host.run(damage.split())
    answer = network.call("CHECK", c1)
    assert answer.code == 104
    assert wanted in f"{answer.msg} {answer.json.get('details', '')}"
    assert network.gc(c1, verb="STATUS").code == 51
    assert network.call("PYCNI_REPAIR", c1).must()["failed"] == []
    network.call("CHECK", c1).must()
    other.call("PYCNI_REPAIR", o1).must()
    network.gc(c1, verb="STATUS").must()
    assert elements(host) == before


def test_an_add_notices_that_shared_rules_are_lost(host: Host) -> None:
    network = Network(host, backend="nftables", **FULL)
    network.attach(1)
    bridge = network.net.bridge
    for damage in ("nft flush ruleset", "nft flush chain inet pycni_firewall admitted"):
        host.run(damage.split())
        network.attach(2 if "ruleset" in damage else 3)
        assert "@admitted6" in host.run(["nft", "list", "chain", "inet", "pycni_firewall", "admitted"])
        # The policies of links come back, too, without their containers' addresses.
        assert elements(host)["isolated"] == {bridge}


@pytest.mark.parametrize("backend", BACKENDS)
def test_repair_of_the_other_suites_flush(host: Host, backend: str) -> None:
    network = Network(host, backend=backend, ingressPolicy="same-bridge")
    c1 = network.attach(1)
    before = set(rules(host)) if backend == "iptables" else elements(host)
    host.run(["sh", "-c", "nft flush ruleset"])
    assert network.call("CHECK", c1).code == 104
    network.call("PYCNI_REPAIR", c1).must()
    network.call("CHECK", c1).must()
    assert (set(rules(host)) if backend == "iptables" else elements(host)) == before


def test_without_iptables_the_choice_is_nftables(host: Host) -> None:
    network = Network(host)
    c1 = network.container(1)
    with equipped(host, NFT):
        network.call("ADD", c1).must()
        assert elements(host)["admitted4"] == {c1.address}
        for verb in ("CHECK", "DEL"):
            network.call(verb, c1).must()
        assert elements(host) == {}
        network.gc(verb="STATUS").must()
    with equipped(host, {}):
        answer = network.call("ADD", c1)
        assert (answer.code, answer.msg[:30]) == (50, "no firewall backend is usable ")
        assert network.gc(verb="STATUS").code == 50
        network.call("DEL", c1).must()


def test_an_attachment_of_one_backend_is_removed_under_another(host: Host) -> None:
    network = Network(host, backend="nftables")
    c1 = network.attach(1)
    network.keys["backend"] = "iptables"
    c2 = network.attach(2)
    for each in (c1, c2):
        network.call("DEL", each).must()
    assert (elements(host), rules(host, c2.address)) == ({}, [])


def test_gates_go_with_the_table(host: Host) -> None:
    drop_forwarded(host, "nftables")
    drop_forwarded(host, "iptables")
    before = host.run(["nft", "list", "chain", "inet", "filter", "forward"])
    network = Network(host, backend="nftables")
    c1 = network.attach(1)
    for where in ("inet filter forward", "ip filter FORWARD", "ip6 filter FORWARD"):
        assert "pycni: admitted" in host.run(["nft", "list", "chain", *where.split()])
    # iptables still reads its table.
    assert "--mark 0x1000/0x1000" in host.run(["iptables", "-S", "FORWARD"])
    network.call("DEL", c1).must()
    network.gc().must()
    assert host.run(["nft", "list", "chain", "inet", "filter", "forward"]) == before
    assert rules(host) == []


@pytest.mark.parametrize("where", ["network", "container"])
def test_names_reach_the_rules_as_data(host: Host, where: str) -> None:
    """The longest and strangest names that a runtime accepts, in comments and in the names of files."""
    network = Network(host, backend="nftables", **FULL)
    c1 = network.container(1)
    name = "n-._" * 60
    conf = {"name": name} if where == "network" else {}
    for verb in ("ADD", "CHECK", "DEL"):
        network.call(verb, c1, conf=conf).must()
    assert (elements(host), notes(host)) == ({}, [])


def test_addresses_of_a_result_are_single_addresses(host: Host) -> None:
    """A prefix in prevResult admits no more than its address."""
    for backend in BACKENDS:
        network = Network(host, 1 if backend == "iptables" else 2, backend=backend)
        c1 = network.container(1)
        ips = [{"address": "10.7.7.7/0"}, {"address": "0.0.0.0/0"}, {"address": "::/0"}]
        network.call("ADD", c1, conf={"prevResult": c1.prev_result | {"ips": ips}}).must()
    assert elements(host)["admitted4"] == {"10.7.7.7", "0.0.0.0"}  # noqa: S104 - no socket is bound
    assert not [each for each in rules(host) if "/0 " in each]
    assert len(rules(host, "-A CNI-FORWARD -s 10.7.7.7/32", "-A CNI-FORWARD -s 0.0.0.0/32")) == 2


def test_another_networks_element_is_not_removed(host: Host) -> None:
    """Two containers with one address: the later one owns the element, and the DEL of the other leaves it."""
    first, second = (Network(host, number, backend="nftables") for number in (1, 2))
    a, b = first.container(1), second.container(1)
    first.call("ADD", a).must()
    second.call("ADD", b, conf={"prevResult": b.prev_result | {"ips": a.prev_result["ips"]}}).must()
    first.call("DEL", a).must()
    assert elements(host)["admitted4"] == {a.address}
    second.call("DEL", b).must()
    assert elements(host) == {}
