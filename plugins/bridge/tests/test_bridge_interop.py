"""Debian's Go plugins and ours on the same attachments: ADD by one, CHECK and DEL by the other."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import GO, OURS
from cni.testing.network import Network

if TYPE_CHECKING:
    from cni.testing import Host, Snapshot

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not (GO / "bridge").exists(), reason="containernetworking-plugins is not installed"),
]

CONFS: dict[str, dict[str, Any]] = {
    "internal": {},
    "gateway": {"isDefaultGateway": True, "mtu": 1400, "hairpinMode": True},
    "masquerade": {"isDefaultGateway": True, "ipMasq": True},
    "layer 2": {"ipam": {}, "macspoofchk": True},
}


# The container's ID; not two digits of a random MAC address.
_NAMED = re.compile(r"(?<!:)\bc1\b(?!:[0-9a-f]{2}\b)")


def left(snapshot: Snapshot) -> list[str]:
    """Find what still belongs to a container, on the host."""
    of_host = [line for line in (*snapshot.links, *snapshot.rules) if line.startswith("host")]
    named = [line for line in (*of_host, *snapshot.files) if "veth" in line or _NAMED.search(line)]
    return sorted(named)


@pytest.mark.parametrize("conf", CONFS.values(), ids=CONFS)
@pytest.mark.parametrize("go_adds", [True, False], ids=["go-adds", "we-add"])
def test_one_checks_and_removes_what_the_other_made(
    host: Host, conf: dict[str, Any], *, go_adds: bool
) -> None:
    maker, other = (GO, OURS) if go_adds else (OURS, GO)
    net = Network(host, cniVersion="1.0.0", **conf)
    one = net.add("c1", bindir=maker)
    # The Go plugin of this release cannot check what has no IPAM.
    if conf.get("ipam") != {} or other is OURS:
        net.check(one, bindir=other).must()
    net.delete("c1", bindir=other, keys={"prevResult": one.answer.json})
    assert one.sandbox.links() == ["lo"]
    assert left(host.snapshot()) == []


@pytest.mark.parametrize("go_first", [True, False], ids=["go-first", "we-first"])
def test_both_attach_to_one_bridge(host: Host, *, go_first: bool) -> None:
    net = Network(host, cniVersion="1.0.0", isDefaultGateway=True)
    one = net.add("c1", bindir=GO if go_first else OURS)
    two = net.add("c2", bindir=OURS if go_first else GO)
    with two.sandbox.serve(80):
        assert one.sandbox.dial(two.address, 80).address == one.address
    net.check(one, bindir=OURS).must()
    net.check(two, bindir=OURS).must()


def test_ours_removes_a_go_masquerade_when_the_namespace_is_gone(host: Host) -> None:
    net = Network(host, cniVersion="1.0.0", isDefaultGateway=True, ipMasq=True)
    one = net.add("c1", bindir=GO)
    one.sandbox.delete()
    net.delete("c1", netns="")
    assert left(host.snapshot()) == []
