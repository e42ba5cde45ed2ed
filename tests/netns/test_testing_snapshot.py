"""Snapshots of the test library leave out what the kernel does at a later time of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.patience import wait_until

if TYPE_CHECKING:
    from cni.testing import Host

PORT = """
link add br0 type bridge
link set br0 up
link add eth0 type veth peer name eth1
link set eth0 master br0
link set eth0 up
"""


def has_link_local(host: Host, name: str) -> bool:
    [link] = host.json(["ip", "-j", "-6", "addr", "show", "dev", name]) or [{"addr_info": []}]
    return any(each["local"].startswith("fe80::") for each in link.get("addr_info", ()))


def is_forwarding(host: Host, name: str) -> bool:
    [link] = host.json(["ip", "-j", "-d", "link", "show", "dev", name])
    return bool(link["linkinfo"]["info_slave_data"]["state"] == "forwarding")


def test_a_carrier_changes_no_snapshot(host: Host) -> None:
    """The other end of the port's pair goes to another namespace, and gives the port its carrier there."""
    sandbox = host.sandbox("c1")
    host.run(["ip", "-batch", "-"], PORT)
    host.run(["ip", "link", "set", "eth1", "netns", "c1"])
    before = host.snapshot()
    assert not is_forwarding(host, "eth0")
    sandbox.run(["ip", "link", "set", "eth1", "up"])
    wait_until(lambda: is_forwarding(host, "eth0") and has_link_local(host, "br0"))
    after = [line for line in before.differences(host.snapshot()) if "c1: " not in line]
    assert after == []


def test_a_link_local_address_of_another_kind_is_seen(host: Host) -> None:
    host.run(["ip", "-batch", "-"], PORT)
    before = host.snapshot()
    host.run(["ip", "addr", "add", "fe80::1/64", "dev", "br0", "nodad"])
    assert [line for line in before.differences(host.snapshot()) if "addresses" in line] != []
