"""All verbs of the vlan plugin on real hosts. The host's eth0 is the master."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import GO, OURS
from cni.testing.network import Network

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host

pytestmark = pytest.mark.needs_kernel("vlan")

IPAM = {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd01::/64"}]]}


def network(host: Host, **keys: Any) -> Network:
    assert host.outside
    net = Network(host, "vlan", **{"ipam": IPAM, "master": "eth0", "vlanId": 7, **keys})
    del net.conf["bridge"]
    return net


def test_the_container_reaches_the_vlan_behind_the_master(host: Host) -> None:
    net = network(host, mtu=1400)
    one, outside = net.add("c1"), host.outside.sandbox
    for command in (
        "link add link eth0 name eth0.7 type vlan id 7",
        "link set eth0.7 up",
        "addr add 10.1.0.100/24 dev eth0.7",
    ):
        outside.run(["ip", *command.split()])
    with outside.serve(81):
        assert one.sandbox.dial("10.1.0.100", 81).address == one.address
    shown = one.sandbox.json(["ip", "-d", "-j", "link", "show", "eth0"])[0]
    assert (shown["linkinfo"]["info_data"]["id"], shown["mtu"]) == (7, 1400)
    assert one.answer.json["interfaces"][0]["mtu"] == 1400
    net.check(one).must()
    answer = net.check(one, keys={"vlanId": 8})
    assert "Interface eth0 has VLAN ID 7, not 8" in answer.text


def test_a_vlan_that_is_in_use_is_refused_and_the_first_one_stays(host: Host) -> None:
    net = network(host)
    one = net.add("c1")
    host.sandbox("c2")
    before = host.snapshot()
    answer = net.call("ADD", "c2")
    assert (answer.code, answer.msg) == (100, "failed to create vlan: file exists")
    assert "VLAN ID" in answer.json["details"]
    assert before.differences(host.snapshot()) == []
    net.check(one).must()


def test_del_needs_neither_master_nor_namespace(host: Host) -> None:
    net = network(host)
    one, two = net.add("c1"), network(host, vlanId=8).add("c2")
    two.sandbox.delete()
    host.run(["ip", "link", "del", "eth0"])
    for name in ("c1", "c2"):
        for _ in range(2):
            net.delete(name)
    assert one.sandbox.links() == ["lo"]
    leases = host.run(["ls", "/var/lib/cni/networks/net1"]).split()
    assert [each for each in leases if each[0].isdigit()] == []


@pytest.mark.interop
@pytest.mark.skipif(not (GO / "vlan").exists(), reason="containernetworking-plugins is not installed")
@pytest.mark.parametrize(("first", "second"), [(OURS, GO), (GO, OURS)], ids=["ours first", "Go's first"])
def test_one_checks_and_removes_what_the_other_made(
    host: Host, first: Path | None, second: Path | None
) -> None:
    net = network(host, cniVersion="1.0.0")
    one = net.add("c1", bindir=first)
    net.check(one, bindir=second).must()
    net.delete("c1", bindir=second, keys={"prevResult": one.answer.json})
    assert one.sandbox.links() == ["lo"]
