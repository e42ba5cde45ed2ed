"""A link moves into another namespace and back, under a given name, or stays where it was."""

from __future__ import annotations

from contextlib import contextmanager
from ipaddress import ip_interface
from typing import TYPE_CHECKING

import pytest

from cni.errors import CniError, Code, KernelError
from cni.kernel import addr, bridge, link, netns, veth
from cni.kernel.link_move import Side, move
from cni.kernel.rtnetlink import Netlink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.testing import Host

MAC, HOST_MAC = "02:00:00:00:00:05", "02:00:00:00:00:06"


@contextmanager
def both(path: str) -> Iterator[tuple[Side, Side]]:
    """Make a pair on the host. Yield the host's side and the side of a sandbox."""
    with netns.open_netns(path) as ns, netns.own() as here, Netlink() as nl, Netlink(ns) as inside:
        veth.create(nl, veth.VethSpec("ens5", HOST_MAC, "peer", MAC, here))
        yield Side(here, nl), Side(ns, inside)


def names(side: Side) -> list[str]:
    return sorted(each.name for each in link.list_links(side.nl))


def test_a_link_goes_there_and_back_under_another_name(host: Host) -> None:
    path = host.sandbox("c1").path

    def run() -> None:
        with both(path) as (here, there):
            found = link.get(here.nl, "ens5")
            addr.ensure(here.nl, "ens5", found.index, ip_interface("10.1.0.2/24"))
            here.nl.batch(
                [
                    link.set_flags("ens5", found.index, on=link.IFF_UP),
                    link.set_alias("ens5", found.index, "whose it is"),
                ]
            )
            moved = move(found, here, there, "eth0")
            assert (moved.name, moved.mac, moved.alias, moved.is_up) == (
                "eth0",
                HOST_MAC,
                "whose it is",
                False,
            )
            assert (names(here), names(there)) == (["lo", "peer"], ["eth0", "lo"])
            assert addr.list_addrs(there.nl, moved.index) == []
            assert move(moved, there, here, "ens5").mac == HOST_MAC
            assert (names(here), names(there)) == (["ens5", "lo", "peer"], ["lo"])

    host.call(run)


def test_a_link_keeps_its_name_or_gets_one_where_its_own_is_taken(host: Host) -> None:
    path = host.sandbox("c1").path

    def run() -> None:
        with both(path) as (here, there):
            assert move(link.get(here.nl, "ens5"), here, there, "ens5").name == "ens5"
            bridge.create(there.nl, "peer", link.new_mac())
            assert move(link.get(here.nl, "peer"), here, there, "eth0").mac == MAC
            assert names(there) == ["ens5", "eth0", "lo", "peer"]

    host.call(run)


def test_a_port_leaves_its_bridge(host: Host) -> None:
    path = host.sandbox("c1").path

    def run() -> None:
        with both(path) as (here, there):
            bridge.create(here.nl, "br0", link.new_mac())
            port = link.get(here.nl, "ens5")
            here.nl.batch([link.set_master("ens5", port.index, link.get(here.nl, "br0").index)])
            assert move(link.get(here.nl, "ens5"), here, there, "eth0").master == 0

    host.call(run)


def test_a_name_that_is_taken_there_is_refused_and_nothing_moves(host: Host) -> None:
    path = host.sandbox("c1").path

    def run() -> None:
        with both(path) as (here, there):
            bridge.create(there.nl, "eth0", link.new_mac())
            with pytest.raises(CniError) as caught:
                move(link.get(here.nl, "ens5"), here, there, "eth0")
            assert caught.value.code == Code.ALREADY_EXISTS
            assert caught.value.msg == (
                f'could not move "ens5" into network namespace "{path}": "eth0" exists there'
            )
            assert (names(here), names(there)) == (["ens5", "lo", "peer"], ["eth0", "lo"])

    host.call(run)


@pytest.mark.parametrize("name", ["a/b", "a b", "way-too-long-a-name", "..", "x:y"])
def test_a_name_that_the_kernel_refuses_leaves_the_link_where_it_was(host: Host, name: str) -> None:
    path = host.sandbox("c1").path

    def run() -> None:
        with both(path) as (here, there):
            found = link.get(here.nl, "ens5")
            with pytest.raises(KernelError):
                move(found, here, there, name)
            assert (names(here), names(there)) == (["ens5", "lo", "peer"], ["lo"])
            assert link.get(here.nl, "ens5").mac == HOST_MAC

    host.call(run)


def test_a_link_that_cannot_leave_is_told_in_the_kernels_words(host: Host) -> None:
    path = host.sandbox("c1").path

    def run() -> None:
        with both(path) as (here, there):
            with pytest.raises(KernelError) as caught:
                move(link.get(here.nl, "lo"), here, there, "eth0")
            assert caught.value.msg.startswith('could not move "lo" into network namespace ')
            assert (names(here), names(there)) == (["ens5", "lo", "peer"], ["lo"])

    host.call(run)
