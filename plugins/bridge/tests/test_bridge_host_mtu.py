"""CHECK compares the MTU of the host end with the result, where the version has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.network import Network

if TYPE_CHECKING:
    from cni.testing import Host
    from cni.testing.network import Attached


def set_both_ends(host: Host, one: Attached, mtu: int) -> None:
    host.run(["ip", "link", "set", one.host_end, "mtu", str(mtu)])
    one.sandbox.run(["ip", "link", "set", "eth0", "mtu", str(mtu)])


@pytest.mark.parametrize("keys", [{"mtu": 1400}, {}])
def test_another_mtu_on_both_ends_is_reported_and_repaired(host: Host, keys: dict[str, Any]) -> None:
    net = Network(host, cniVersion="1.1.0", **keys)
    one = net.add("c1")
    set_both_ends(host, one, 1280)
    assert f"has MTU 1280, not {keys.get('mtu', 1500)}" in net.check(one).msg
    net.call("PYCNI_REPAIR", "c1", keys={"prevResult": one.answer.json}).must()
    net.check(one).must()


def test_the_mtu_that_a_later_plugin_shows_counts(host: Host) -> None:
    net = Network(host, cniVersion="1.1.0", mtu=1400)
    one = net.add("c1")
    set_both_ends(host, one, 1280)
    result = one.answer.json
    for each in result["interfaces"][1:]:
        each["mtu"] = 1280
    net.call("CHECK", "c1", keys={"prevResult": result}).must()
    host.run(["ip", "link", "set", one.host_end, "mtu", "1400"])
    assert "has MTU 1400, not 1280" in net.call("CHECK", "c1", keys={"prevResult": result}).msg


def test_without_mtus_in_the_result_both_ends_may_have_another_one(host: Host) -> None:
    net = Network(host, cniVersion="1.0.0", mtu=1400)
    one = net.add("c1")
    set_both_ends(host, one, 1280)
    net.check(one).must()
