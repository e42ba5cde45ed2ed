"""DEL of containers of Debian's Go plugins: what is theirs goes, what has their path or name by now stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import GO, OURS
from cni.testing.network import GATEWAY, Network

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not (GO / "bridge").exists(), reason="containernetworking-plugins is not installed"),
]
CONF: dict[str, Any] = {"cniVersion": "1.0.0", "isDefaultGateway": True}
RENAMED = ["link set eth0 down", "link set eth0 name hidden", "link set hidden up"]
ATTACKS = {
    "renamed": RENAMED,
    "another link": [*RENAMED, "link add eth0 type veth peer name decoy"],
    "another MAC address": ["link set eth0 address 02:00:00:00:00:77"],
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_go_container_cannot_stay_on_its_network(host: Host, attack: list[str]) -> None:
    net = Network(host, **CONF)
    one = net.add("c1", bindir=GO)
    for each in attack:
        one.sandbox.run(["ip", *each.split()])
    net.delete("c1", keys={"prevResult": one.answer.json})
    assert one.host_end not in host.links()
    assert not {"hidden"} & set(one.sandbox.links())


@pytest.mark.parametrize("has_result", [True, False], ids=["result", "no-result"])
def test_a_go_container_is_detached(host: Host, *, has_result: bool) -> None:
    net = Network(host, **CONF)
    one = net.add("c1", bindir=GO)
    for _ in range(2):
        net.delete("c1", keys={"prevResult": one.answer.json} if has_result else {})
        assert one.sandbox.links() == ["lo"]
        assert one.host_end not in host.links()


@pytest.mark.parametrize("netns", ["", "/run/netns/nowhere"])
def test_a_go_container_is_detached_without_its_namespace(host: Host, netns: str) -> None:
    """The namespace lives on, held by a process, when the runtime has forgotten its path."""
    net = Network(host, **CONF)
    one = net.add("c1", bindir=GO)
    net.delete("c1", netns=netns, keys={"prevResult": one.answer.json})
    assert one.sandbox.links() == ["lo"]
    assert one.host_end not in host.links()


@pytest.mark.parametrize("gone_by", [OURS, GO], ids=["ours", "go"])
@pytest.mark.parametrize("living_by", [OURS, GO], ids=["ours", "go"])
def test_a_late_del_leaves_the_container_alone_that_has_the_path_by_now(
    host: Host, gone_by: Path | None, living_by: Path | None
) -> None:
    net = Network(host, **CONF)
    gone = net.add("gone", bindir=gone_by)
    gone.sandbox.delete()
    sandbox = host.sandbox("gone")
    net.call("ADD", "living", netns=sandbox, bindir=living_by).must()
    net.delete("gone", netns=sandbox, keys={"prevResult": gone.answer.json})
    sandbox.run(["ping", "-c", "1", "-W", "5", GATEWAY])


def test_a_link_of_the_host_with_the_name_of_a_gone_host_end_stays(host: Host) -> None:
    net = Network(host, **CONF)
    one = net.add("c1", bindir=GO)
    one.sandbox.delete()
    host.sandbox("other")
    host.run(f"ip link add {one.host_end} type veth peer name eth0 netns other".split())
    net.delete("c1", netns="", keys={"prevResult": one.answer.json})
    assert one.host_end in host.links()
