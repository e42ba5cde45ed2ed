"""All verbs of the dummy plugin on real hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.network import Network

if TYPE_CHECKING:
    from cni.testing import Host


def network(host: Host, **keys: Any) -> Network:
    net = Network(host, "dummy", **keys)
    del net.conf["bridge"]
    return net


def test_a_configuration_without_ipam_is_refused(host: Host) -> None:
    host.sandbox("c1")
    answer = network(host, ipam={}).call("ADD", "c1")
    assert (answer.code, answer.msg) == (7, "dummy interface requires an IPAM configuration")


@pytest.mark.kernel_without("dummy")
def test_a_kernel_without_such_links_is_named_and_nothing_is_left(host: Host) -> None:
    host.sandbox("c1")
    before = host.snapshot()
    net = network(host)
    answer = net.call("ADD", "c1")
    assert (answer.code, answer.msg) == (100, "failed to create dummy: operation not supported")
    assert answer.json["details"] == "this kernel has no links of kind dummy: modprobe dummy"
    status = host.plugin("dummy", "STATUS", net.conf, container_id="", ifname="")
    assert status.code == 50
    assert before.differences(host.snapshot()) == []


@pytest.mark.needs_kernel("dummy")
def test_the_link_has_its_addresses_until_del(host: Host) -> None:
    net = network(host)
    one = net.add("c1")
    assert one.sandbox.addresses("eth0") == ["10.1.0.2/24", "fd01::2/64"]
    shown = one.sandbox.json(["ip", "-d", "-j", "link", "show", "eth0"])[0]
    assert shown["linkinfo"]["info_kind"] == "dummy"
    assert one.answer.json["interfaces"] == [
        {"name": "eth0", "mac": shown["address"], "sandbox": one.sandbox.path, "mtu": 1500}
    ]
    net.check(one).must()
    one.sandbox.run(["ip", "link", "set", "eth0", "down"])
    assert net.check(one).msg == "Interface eth0 is down"
    for _ in range(2):
        net.delete("c1")
    assert one.sandbox.links() == ["lo"]
