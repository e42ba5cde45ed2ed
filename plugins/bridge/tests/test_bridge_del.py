"""DEL and GC remove all parts of an attachment, whatever remains of the container."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.network import Network

if TYPE_CHECKING:
    from cni.testing import Host, Snapshot

FULL: dict[str, Any] = {"isDefaultGateway": True, "ipMasq": True, "macspoofchk": True}
BACKENDS = ["iptables", "nftables"]


def of_container(snapshot: Snapshot, host_end: str) -> list[str]:
    """Find what still speaks of container c1 or its links and addresses on the host."""
    words = (host_end, "10.1.0.2", "fd01::2", '"c1', "c1-eth0", "net1")
    lines = [
        each for each in (*snapshot.links, *snapshot.rules, *snapshot.files) if not each.startswith("c1:")
    ]
    return [line for line in lines if any(word in line for word in words)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_del_removes_all_and_may_come_twice(host: Host, backend: str) -> None:
    net = Network(host, **FULL, ipMasqBackend=backend)
    one = net.add("c1")
    for _ in range(2):
        net.delete("c1")
        assert one.sandbox.links() == ["lo"]
        assert of_container(host.snapshot(), one.host_end) == []


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("netns", ["", "gone", "plain", "not told"])
def test_del_removes_all_on_the_host_without_a_namespace(host: Host, backend: str, netns: str) -> None:
    net = Network(host, **FULL, ipMasqBackend=backend)
    one = net.add("c1")
    if netns != "not told":
        # The kernel may still be removing the links, so that DEL finds them.
        one.sandbox.delete(settled=False)
    if netns == "plain":
        host.run(["touch", one.sandbox.path])
    net.delete("c1", netns=one.sandbox.path if netns in {"gone", "plain"} else "")
    if netns == "plain":
        host.run(["rm", one.sandbox.path])
    assert of_container(host.snapshot(), one.host_end) == []


def test_del_of_what_never_was_succeeds(host: Host) -> None:
    host.sandbox("c1")
    before = host.snapshot()
    Network(host, **FULL).delete("c1")
    assert before.differences(host.snapshot()) == []


def test_del_leaves_a_link_alone_that_only_has_the_name_of_a_host_end(host: Host) -> None:
    net = Network(host)
    one = net.add("c1")
    net.delete("c1")
    host.run(["ip", "link", "add", one.host_end, "type", "bridge"])
    net.delete("c1")
    assert one.host_end in host.links()


def test_a_host_end_whose_name_is_taken_gets_another_one(host: Host) -> None:
    net = Network(host)
    one = net.add("c1")
    net.delete("c1")
    host.run(["ip", "link", "add", one.host_end, "type", "bridge"])
    again = net.call("ADD", "c1").must()
    assert again["interfaces"][1]["name"] != one.host_end
    net.delete("c1")
    assert again["interfaces"][1]["name"] not in host.links()


def test_del_goes_on_when_ipam_fails(host: Host) -> None:
    net = Network(host, **FULL)
    one = net.add("c1")
    answer = net.call("DEL", "c1", keys={"ipam": {"type": "nowhere"}})
    assert answer.msg.startswith('failed to find plugin "nowhere" in path')
    found = of_container(host.snapshot(), one.host_end)
    assert found
    assert all("/var/lib/cni/networks" in line for line in found)


def test_gc_removes_what_is_not_valid_and_keeps_the_rest(host: Host) -> None:
    net = Network(host, **FULL)
    gone, kept = net.add("gone"), net.add("kept")
    with_kept = [each for each in host.snapshot().rules if "kept" in each]
    gone.sandbox.delete()
    valid = [{"containerID": "kept", "ifname": "eth0"}]
    net.call("GC", "", netns="", keys={"cni.dev/valid-attachments": valid}).must()
    after = host.snapshot()
    assert not [each for each in (*after.rules, *after.files) if "gone" in each]
    assert [each for each in after.rules if "kept" in each] == with_kept
    net.check(kept).must()


def test_gc_removes_links_of_invalid_attachments_of_its_own_network_only(host: Host) -> None:
    net, other = Network(host), Network(host, name="net2", ipam={})
    gone, kept = net.add("c1"), other.add("c2")
    net.call("GC", "", netns="", keys={"cni.dev/valid-attachments": None}).must()
    assert gone.host_end not in host.links()
    assert kept.host_end in host.links()


def test_gc_without_a_list_removes_nothing_that_may_live(host: Host) -> None:
    net = Network(host, **FULL)
    one = net.add("c1")
    before = host.snapshot()
    net.call("GC", "", netns="").must()
    assert before.differences(host.snapshot()) == []
    net.check(one).must()
