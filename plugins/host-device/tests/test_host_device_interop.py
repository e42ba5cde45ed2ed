"""Debian's Go host-device and ours: equal results; one gives back what the other took."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import GO, OURS
from cni.testing.network import Network

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(
        not (GO / "host-device").exists(), reason="containernetworking-plugins is not installed"
    ),
]
MAC = "02:00:00:00:00:a0"
RANGES = [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd01::/64"}]]
IPAM = {"type": "host-local", "ranges": RANGES, "routes": [{"dst": "0.0.0.0/0"}]}
CONFS: dict[str, dict[str, Any]] = {
    "by name": {"device": "hd0", "dns": {"nameservers": ["10.1.0.1"]}},
    "by MAC address, without IPAM": {"hwaddr": MAC, "ipam": {}},
}


def network(host: Host, **keys: Any) -> Network:
    host.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/default/addr_gen_mode"])
    wire = host.sandbox("wire")
    wire.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6"])
    host.run(
        ["ip", "link", "add", "hd0", "address", MAC, "type", "veth", "peer", "name", "far", "netns", "wire"]
    )
    # Without a carrier Go's ADD waits 10 s for the IPv6 address.
    wire.run(["ip", "link", "set", "far", "up"])
    net = Network(host, "host-device", **{"cniVersion": "1.0.0", "ipam": IPAM, **keys})
    del net.conf["bridge"]
    return net


def state(host: Host, net: Network, bindir: Path | None) -> tuple[Any, list[str]]:
    """Attach a container; return its result, link, addresses and routes, and detach it."""
    one = net.add("c1", bindir=bindir)
    # The Go plugin writes empty members that the spec allows to be absent.
    result = {key: value for key, value in one.answer.json.items() if value}
    shown = one.sandbox.json(["ip", "-d", "-j", "link", "show", "eth0"])[0]
    lines = [shown["ifalias"], str(shown["mtu"]), shown["address"], str("UP" in shown["flags"])]
    lines += one.sandbox.addresses("eth0")
    lines += [str(each) for each in one.sandbox.json(["ip", "-j", "route"])]
    net.delete("c1", bindir=bindir)
    one.sandbox.delete()
    host.run(["rm", "-rf", "/var/lib/cni/networks"])
    return result, lines


@pytest.mark.parametrize("conf", CONFS.values(), ids=CONFS)
def test_both_make_the_same(host: Host, conf: dict[str, Any]) -> None:
    net = network(host, **conf)
    assert state(host, net, OURS) == state(host, net, GO)


@pytest.mark.parametrize("conf", CONFS.values(), ids=CONFS)
@pytest.mark.parametrize(("first", "second"), [(OURS, GO), (GO, OURS)], ids=["ours first", "Go's first"])
def test_one_checks_and_gives_back_what_the_other_took(
    host: Host, first: Path | None, second: Path | None, conf: dict[str, Any]
) -> None:
    net = network(host, **conf)
    warm = net.add("warm")
    net.delete("warm")
    warm.sandbox.delete()
    before = host.snapshot()
    one = net.add("c1", bindir=first)
    net.check(one, bindir=second).must()
    net.delete("c1", bindir=second, keys={"prevResult": one.answer.json})
    one.sandbox.delete()
    assert host.links() == ["lo", "hd0"]
    # Go's DEL does not know the record, and older releases leave the alias. GC removes both.
    gc = {"cni.dev/valid-attachments": [], "cniVersion": "1.1.0"}
    host.plugin("host-device", "GC", net.conf | gc, container_id="", ifname="").must()
    assert before.differences(host.snapshot()) == []
