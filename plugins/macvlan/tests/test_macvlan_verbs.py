"""All verbs of the macvlan plugin on real hosts: what it makes, compares, restores and removes.

The host's eth0 is the master; the other end of its wire is the namespace `outside`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.network import Network

if TYPE_CHECKING:
    from cni.testing import Host
    from cni.testing.network import Attached

RANGES = [
    [{"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.10"}],
    [{"subnet": "2001:db8:ffff::/64", "rangeStart": "2001:db8:ffff::10"}],
]
IPAM = {"type": "host-local", "ranges": RANGES, "routes": [{"dst": "0.0.0.0/0"}]}


def network(host: Host, **keys: Any) -> Network:
    assert host.outside
    net = Network(host, "macvlan", **{"ipam": IPAM, **keys})
    del net.conf["bridge"]
    return net


def link_of(one: Attached, name: str = "eth0") -> dict[str, Any]:
    shown: dict[str, Any] = one.sandbox.json(["ip", "-d", "-j", "link", "show", name])[0]
    return shown


def test_the_result_has_the_link_with_its_addresses(host: Host) -> None:
    one = network(host, mtu=1400, dns={"nameservers": ["192.0.2.1"]}).add("c1")
    result, shown = one.answer.json, link_of(one)
    assert result["interfaces"] == [
        {"name": "eth0", "mac": shown["address"], "sandbox": one.sandbox.path, "mtu": 1400}
    ]
    assert [(each["address"], each["interface"]) for each in result["ips"]] == [
        ("192.0.2.10/24", 0),
        ("2001:db8:ffff::10/64", 0),
    ]
    assert result["dns"] == {"nameservers": ["192.0.2.1"]}
    assert (shown["linkinfo"]["info_kind"], shown["mtu"]) == ("macvlan", 1400)
    assert shown["linkinfo"]["info_data"]["mode"] == "bridge"
    assert "UP" in shown["flags"]


def test_containers_reach_each_other_and_the_network_of_the_master(host: Host) -> None:
    net = network(host)
    one, two, outside = net.add("c1"), net.add("c2"), host.outside
    with two.sandbox.serve(80), outside.sandbox.serve(81):
        assert one.sandbox.dial(two.address, 80).address == one.address
        assert one.sandbox.dial(two.address6, 80).address == one.address6
        assert one.sandbox.dial(outside.address, 81).address == one.address
        assert one.sandbox.dial(outside.address6, 81).address == one.address6


@pytest.mark.parametrize("kind", ["bridge", "private", "vepa", "passthru"])
def test_the_mode_is_set(host: Host, kind: str) -> None:
    net = network(host, mode=kind)
    one = net.add("c1")
    assert link_of(one)["linkinfo"]["info_data"]["mode"] == kind
    net.check(one).must()


def test_the_runtimes_mac_comes_before_that_of_the_arguments_and_the_configuration(host: Host) -> None:
    net = network(host, mac="02:00:00:00:00:01")
    assert link_of(net.add("c1"))["address"] == "02:00:00:00:00:01"
    assert (
        link_of(net.add("c2", args="IgnoreUnknown=1;MAC=02:00:00:00:00:02"))["address"] == "02:00:00:00:00:02"
    )
    net.conf["runtimeConfig"] = {"mac": "02:00:00:00:00:03"}
    assert (
        link_of(net.add("c3", args="IgnoreUnknown=1;MAC=02:00:00:00:00:02"))["address"] == "02:00:00:00:00:03"
    )


def test_a_network_without_ipam_only_has_the_link(host: Host) -> None:
    net = network(host, ipam={})
    one = net.add("c1")
    assert "UP" in link_of(one)["flags"]
    assert one.answer.json.get("ips", []) == []
    net.check(one).must()
    net.delete("c1")
    assert one.sandbox.links() == ["lo"]


def test_the_master_may_be_in_the_container(host: Host) -> None:
    net = network(host, linkInContainer=True, master="below")
    sandbox = host.sandbox("c1")
    sandbox.run(["ip", "link", "add", "below", "type", "veth", "peer", "name", "other"])
    sandbox.run(["ip", "link", "set", "below", "up"])
    result = net.call("ADD", "c1").must()
    assert sandbox.json(["ip", "-j", "link", "show", "eth0"])[0]["link"] == "below"
    net.call("CHECK", "c1", keys={"prevResult": result}).must()
    net.delete("c1")
    assert sandbox.links() == ["lo", "other", "below"]


FAILURES: dict[str, tuple[dict[str, Any], int, str]] = {
    "a master that is not there": (
        {"master": "none0"},
        100,
        'failed to lookup master "none0": Link not found',
    ),
    "a master that is only on the host": (
        {"master": "eth0", "linkInContainer": True},
        100,
        'Link not found; set "master" to a link of the container: it has none',
    ),
    "no default route in the container": (
        {"linkInContainer": True},
        100,
        "no default route interface found",
    ),
    "an MTU above the master's": (
        {"mtu": 9000},
        7,
        'invalid MTU 9000, must be [0, master MTU(1500)]; set "mtu" to at most 1500',
    ),
    "an unknown mode": ({"mode": "x"}, 7, 'unknown macvlan mode: "x"'),
    "a MAC address of a group": (
        {"mac": "01:00:5e:00:00:01"},
        7,
        "failed to create macvlan: cannot assign requested address",
    ),
    "an IPAM that is not there": ({"ipam": {"type": "nowhere"}}, 7, 'failed to find plugin "nowhere"'),
    "itself as IPAM": (
        {"ipam": {"type": "macvlan"}},
        7,
        '"ipam.type" is "macvlan", which gives no addresses',
    ),
}


@pytest.mark.parametrize(("keys", "code", "message"), FAILURES.values(), ids=FAILURES)
def test_an_add_that_fails_leaves_nothing(host: Host, keys: dict[str, Any], code: int, message: str) -> None:
    net = network(host, **keys)
    host.sandbox("c1")
    before = host.snapshot()
    answer = net.call("ADD", "c1")
    assert answer.code == code
    assert message in answer.text
    assert before.differences(host.snapshot()) == []


def test_a_second_add_does_not_harm_the_first(host: Host) -> None:
    net = network(host)
    one = net.add("c1")
    before = host.snapshot()
    answer = net.call("ADD", "c1")
    assert (answer.code, answer.msg) == (
        105,
        f'failed to create macvlan: "eth0" exists in {one.sandbox.path}',
    )
    assert before.differences(host.snapshot()) == []
    net.check(one).must()


def test_a_second_container_on_a_passthru_master_is_told_why(host: Host) -> None:
    net = network(host, mode="passthru")
    net.add("c1")
    before = host.snapshot()
    host.sandbox("c2")
    answer = net.call("ADD", "c2")
    assert (answer.code, answer.json["details"]) == (
        100,
        "eth0 takes no more links, or cannot have links of kind macvlan on top",
    )
    host.run(["ip", "netns", "del", "c2"])
    assert before.differences(host.snapshot()) == []


def test_all_goes_with_del_which_may_be_called_again(host: Host) -> None:
    net = network(host)
    net.add("first")
    net.delete("first")
    host.sandbox("c1")
    host.sandbox("c2")
    before = host.snapshot()
    for name in ("c1", "c2"):
        net.call("ADD", name).must()
    for name in ("c1", "c2"):
        for _ in range(2):
            net.delete(name)
    assert before.differences(host.snapshot()) == []


def test_del_needs_neither_master_nor_namespace(host: Host) -> None:
    net = network(host, master="eth0")
    one, two = net.add("c1"), net.add("c2")
    two.sandbox.delete()
    host.run(["ip", "link", "del", "eth0"])
    for name in ("c1", "c2"):
        for _ in range(2):
            net.delete(name)
    assert one.sandbox.links() == ["lo"]
    leases = host.run(["ls", "/var/lib/cni/networks/net1"]).split()
    assert [each for each in leases if each[0].isdigit()] == []
    assert host.run(["ls", "/run/pycni/attachments"]) == ""


DAMAGES = {
    "address": ("ip addr del 192.0.2.10/24 dev eth0", "Failed to match addr 192.0.2.10/24 on interface eth0"),
    "route": ("ip route del default", "Expected Route {Dst: 0.0.0.0/0, GW: None} not found"),
    "down": ("ip link set eth0 down", "Interface eth0 is down"),
    "MAC": ("ip link set eth0 address 02:00:00:00:00:09", "Interface eth0 Mac 02:00:00:00:00:09"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_check_reports_what_repair_restores(host: Host, damage: str, message: str) -> None:
    net = network(host)
    one = net.add("c1")
    net.check(one).must()
    one.sandbox.run(damage.split())
    answer = net.check(one)
    assert answer.code == 104
    assert message in answer.text
    net.repair(one).must()
    net.check(one).must()


def test_check_is_not_satisfied_with_a_link_on_another_master(host: Host) -> None:
    """The container makes a link like ours whose master has the index of the host's."""
    net = network(host)
    one = net.add("c1")
    mac, index = link_of(one)["address"], host.json(["ip", "-j", "link", "show", "eth0"])[0]["ifindex"]
    run = one.sandbox.run
    run(["ip", "link", "del", "eth0"])
    run(["ip", "link", "add", "below", "index", str(index), "type", "veth", "peer", "name", "other"])
    run(
        [
            "ip",
            "link",
            "add",
            "link",
            "below",
            "name",
            "eth0",
            "address",
            mac,
            "type",
            "macvlan",
            "mode",
            "bridge",
        ]
    )
    answer = net.check(one)
    assert answer.code == 104
    assert "Interface eth0 is not on master eth0 of the host" in answer.text


def test_repair_without_the_link_says_that_an_add_is_needed(host: Host) -> None:
    net = network(host)
    one = net.add("c1")
    one.sandbox.run(["ip", "link", "del", "eth0"])
    answer = net.repair(one)
    assert (answer.code, answer.msg) == (
        104,
        f"the macvlan link eth0 in {one.sandbox.path} is gone and cannot be repaired",
    )


def test_del_finds_a_link_that_the_container_has_renamed(host: Host) -> None:
    net = network(host)
    one = net.add("c1")
    one.sandbox.run(["ip", "link", "set", "eth0", "down"])
    one.sandbox.run(["ip", "link", "set", "eth0", "name", "other0"])
    net.delete("c1")
    assert one.sandbox.links() == ["lo"]


def test_a_late_del_leaves_the_link_of_another_container_at_that_path(host: Host) -> None:
    net = network(host)
    one, two = net.add("c1"), net.add("c2")
    net.delete("c1", netns=two.sandbox.path)
    assert two.sandbox.links() == ["lo", "eth0"]
    assert one.sandbox.links() == ["lo", "eth0"]


def test_gc_removes_links_records_and_leases_of_invalid_attachments(host: Host) -> None:
    net = network(host)
    one, two, three = net.add("c1"), net.add("c2"), net.add("c3")
    three.sandbox.delete()
    planned = net.gc("c1", dry_run=True).json
    assert two.sandbox.links() == ["lo", "eth0"]
    assert sorted(each["kind"] for each in planned["stale"]) == ["lease"] * 4 + ["link", "record", "record"]
    net.gc("c1").must()
    assert one.sandbox.links() == ["lo", "eth0"]
    assert two.sandbox.links() == ["lo"]
    net.check(one).must()
    assert net.gc("c1", dry_run=True).json["stale"] == []


def test_status_names_a_master_that_is_gone_or_down(host: Host) -> None:
    net = network(host, master="eth0")
    net.status().must()
    net.add("c1")
    host.run(["ip", "link", "set", "eth0", "down"])
    assert net.status().code == 51
    assert "the master of attached containers is down: eth0" in net.status().text
    host.run(["ip", "link", "del", "eth0"])
    assert "the master of attached containers is gone: eth0" in net.status().text
    net.delete("c1")
    assert net.status().code == 50
    assert 'failed to lookup master "eth0": Link not found' in net.status().text
