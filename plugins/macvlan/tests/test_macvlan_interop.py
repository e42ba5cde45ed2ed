"""Debian's Go macvlan and ours on the same attachments: equal results; one checks what the other made."""

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
    pytest.mark.skipif(not (GO / "macvlan").exists(), reason="containernetworking-plugins is not installed"),
]
RANGES = [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd01::/64"}]]
CONFS: dict[str, dict[str, Any]] = {
    "by default": {},
    "all keys": {"master": "eth0", "mode": "private", "mtu": 1400, "dns": {"nameservers": ["10.1.0.1"]}},
    "without IPAM": {"ipam": {}},
}
MAC = "02:00:00:00:00:01"


def network(host: Host, **keys: Any) -> Network:
    assert host.outside
    ipam = {"type": "host-local", "ranges": RANGES, "routes": [{"dst": "0.0.0.0/0"}]}
    net = Network(host, "macvlan", **{"cniVersion": "1.0.0", "mac": MAC, "ipam": ipam, **keys})
    del net.conf["bridge"]
    return net


def state(host: Host, net: Network, bindir: Path | None) -> tuple[Any, list[str]]:
    """Attach a container; return its result, link, addresses and routes, and detach it."""
    one = net.add("c1", bindir=bindir)
    # The Go plugin writes empty members that the spec allows to be absent.
    result = {key: value for key, value in one.answer.json.items() if value}
    shown = one.sandbox.json(["ip", "-d", "-j", "link", "show", "eth0"])[0]
    lines = [str(shown["linkinfo"]), str(shown["mtu"]), str(shown["address"]), str(sorted(shown["flags"]))]
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


@pytest.mark.parametrize(("first", "second"), [(OURS, GO), (GO, OURS)], ids=["ours first", "Go's first"])
def test_one_checks_and_removes_what_the_other_made(
    host: Host, first: Path | None, second: Path | None
) -> None:
    net = network(host)
    warm = net.add("warm", bindir=first)
    net.delete("warm", bindir=first)
    warm.sandbox.delete()
    before = host.snapshot()
    one = net.add("c1", bindir=first)
    net.check(one, bindir=second).must()
    net.delete("c1", bindir=second, keys={"prevResult": one.answer.json})
    one.sandbox.delete()
    # Go's DEL does not know the record, which GC removes.
    left = [each for each in before.differences(host.snapshot()) if "/run/pycni/attachments" not in each]
    assert left == []
    gc = {"cni.dev/valid-attachments": [], "cniVersion": "1.1.0"}
    host.plugin("macvlan", "GC", net.conf | gc, container_id="", ifname="").must()
    assert before.differences(host.snapshot()) == []
