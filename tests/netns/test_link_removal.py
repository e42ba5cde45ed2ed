"""A link whose removal nobody waits for to the end is gone all the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni.errors import KernelError
from cni.kernel import background, bridge, link, link_removal, netns, veth
from cni.kernel.rtnetlink import Netlink

if TYPE_CHECKING:
    from cni.testing import Host

MAC, HOST_MAC = "02:00:00:00:00:05", "02:00:00:00:00:06"
ROUNDS = 20


def count_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("early", [True, False])
def test_neither_end_of_a_removed_pair_can_be_seen(host: Host, *, early: bool) -> None:
    path = host.sandbox("c1").path

    def run() -> None:
        with netns.open_netns(path) as ns, Netlink() as nl, Netlink(ns) as inside:
            for _ in range(ROUNDS):
                assert veth.create(nl, veth.VethSpec("veth0", HOST_MAC, "eth0", MAC, ns))
                assert link_removal.remove_in(ns, "eth0", link.get(nl, "veth0").peer, early=early)
                assert [each.name for each in link.list_links(inside)] == ["lo"]
                assert [each.name for each in link.list_links(nl)] == ["lo"]

    host.call(run)


def test_another_link_that_has_got_the_name_stays(host: Host) -> None:
    """As when a removal comes late, of a call whose launcher was killed."""

    def run() -> None:
        with Netlink() as nl:
            assert bridge.create(nl, "br0", MAC)
            before = link.get(nl, "br0")
            assert link.remove(nl, "br0", before.index)
            assert bridge.create(nl, "br0", HOST_MAC)
            assert not link.remove(nl, "br0", before.index)
            assert link.get(nl, "br0").mac == HOST_MAC

    host.call(run)


def test_an_absent_link_is_no_error(host: Host) -> None:
    path = host.sandbox("c1").path

    def run() -> None:
        with netns.open_netns(path) as ns:
            assert not link_removal.remove_in(ns, "eth0", 4711, early=True)

    host.call(run)


def test_a_refused_removal_is_reported(host: Host) -> None:
    path = host.sandbox("c1").path

    def run() -> None:
        with netns.open_netns(path) as ns, pytest.raises(KernelError, match='could not remove "lo"'):
            link_removal.remove_in(ns, "lo", 1, early=True)

    host.call(run)


def test_the_thread_that_waits_for_the_kernel_ends_and_leaves_no_descriptor(host: Host) -> None:
    path = host.sandbox("c1").path

    def run() -> None:
        before = count_descriptors()
        with netns.open_netns(path) as ns, Netlink() as nl:
            assert veth.create(nl, veth.VethSpec("veth0", HOST_MAC, "eth0", MAC, ns))
            assert link_removal.remove_in(ns, "eth0", link.get(nl, "veth0").peer, early=True)
        assert background.wait(60)
        assert count_descriptors() == before

    host.call(run)


def test_only_a_caller_that_asks_for_it_continues_early() -> None:
    assert link_removal.is_early({link_removal.ANSWER_VARIABLE: "gone"})
    assert not link_removal.is_early({link_removal.ANSWER_VARIABLE: "ack"})
    assert not link_removal.is_early({})
