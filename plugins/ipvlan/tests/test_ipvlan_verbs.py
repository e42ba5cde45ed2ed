"""All verbs of the ipvlan plugin on real hosts. The host's eth0 is the master."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import GO, OURS
from cni.testing.network import Network

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host
    from cni.testing.network import Attached

pytestmark = pytest.mark.needs_kernel("ipvlan")

RANGES = [
    [{"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.10"}],
    [{"subnet": "2001:db8:ffff::/64", "rangeStart": "2001:db8:ffff::10"}],
]
IPAM = {"type": "host-local", "ranges": RANGES, "routes": [{"dst": "0.0.0.0/0"}]}


def network(host: Host, **keys: Any) -> Network:
    assert host.outside
    net = Network(host, "ipvlan", **{"ipam": IPAM, **keys})
    del net.conf["bridge"]
    return net


def mode_of(one: Attached) -> str:
    shown = one.sandbox.json(["ip", "-d", "-j", "link", "show", "eth0"])[0]
    assert shown["linkinfo"]["info_kind"] == "ipvlan"
    return str(shown["linkinfo"]["info_data"]["mode"])


def test_containers_reach_each_other_and_the_network_of_the_master(host: Host) -> None:
    net = network(host)
    one, two, outside = net.add("c1"), net.add("c2"), host.outside
    master = host.json(["ip", "-j", "link", "show", "eth0"])[0]
    assert one.answer.json["interfaces"] == [
        {"name": "eth0", "mac": master["address"], "sandbox": one.sandbox.path, "mtu": 1500}
    ]
    # Their addresses are announced: to wait for a state that the kernel never shows is to give up after 10 s.
    assert one.answer.stderr + two.answer.stderr == ""
    with two.sandbox.serve(80), outside.sandbox.serve(81):
        assert one.sandbox.dial(two.address, 80).address == one.address
        assert one.sandbox.dial(two.address6, 80).address == one.address6
        assert one.sandbox.dial(outside.address, 81).address == one.address
    net.check(one).must()


@pytest.mark.parametrize("kind", ["l2", "l3", "l3s"])
def test_the_mode_is_set_and_compared(host: Host, kind: str) -> None:
    net = network(host, mode=kind)
    one = net.add("c1")
    assert mode_of(one) == kind
    net.check(one).must()
    other = "l3" if kind == "l2" else "l2"
    answer = net.check(one, keys={"mode": other})
    assert f"Interface eth0 has ipvlan mode {kind}, not {other}" in answer.text


def test_behind_another_plugin_it_takes_master_and_addresses_from_the_result(host: Host) -> None:
    net = network(host, ipam={})
    before = {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "eth0"}],
        "ips": [{"address": "192.0.2.50/24", "gateway": "192.0.2.1"}],
    }
    sandbox = host.sandbox("c1")
    result = net.call("ADD", "c1", keys={"prevResult": before}).must()
    assert [(each["address"], each["interface"]) for each in result["ips"]] == [("192.0.2.50/24", 0)]
    assert sandbox.addresses("eth0") == ["192.0.2.50/24"]


def test_del_needs_neither_master_nor_namespace(host: Host) -> None:
    net = network(host)
    one, two = net.add("c1"), net.add("c2")
    two.sandbox.delete()
    host.run(["ip", "link", "del", "eth0"])
    for name in ("c1", "c2"):
        for _ in range(2):
            net.delete(name)
    assert one.sandbox.links() == ["lo"]
    leases = host.run(["ls", "/var/lib/cni/networks/net1"]).split()
    assert [each for each in leases if each[0].isdigit()] == []


def test_a_master_that_has_macvlan_links_is_refused_with_the_reason(host: Host) -> None:
    net = network(host)
    host.run(["ip", "link", "add", "link", "eth0", "name", "mv0", "type", "macvlan", "mode", "bridge"])
    host.sandbox("c1")
    answer = net.call("ADD", "c1")
    assert answer.code == 100
    assert "has links of another kind on top" in answer.text


@pytest.mark.interop
@pytest.mark.skipif(not (GO / "ipvlan").exists(), reason="containernetworking-plugins is not installed")
@pytest.mark.parametrize(("first", "second"), [(OURS, GO), (GO, OURS)], ids=["ours first", "Go's first"])
def test_one_checks_and_removes_what_the_other_made(
    host: Host, first: Path | None, second: Path | None
) -> None:
    net = network(host, cniVersion="1.0.0", master="eth0")
    one = net.add("c1", bindir=first)
    net.check(one, bindir=second).must()
    net.delete("c1", bindir=second, keys={"prevResult": one.answer.json})
    assert one.sandbox.links() == ["lo"]
