"""Namespaces, links, addresses, routes and settings: the library against the kernel itself."""

from __future__ import annotations

import errno
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING

import pytest

from cni.errors import CniError, KernelError
from cni.kernel import addr, bridge, bridge_vlan, link, message_classes, netns, route, sysctl, veth
from cni.kernel.rtnetlink import AF_BRIDGE, RTM_NEWLINK, Message, Netlink
from cni.result import Route
from tests.support.kernel import has

if TYPE_CHECKING:
    from cni.testing import Host

OTHER_KIND = "/proc/self/ns/mnt"
NO_NETNS = ["", "/run/nothing", "/etc/hostname/x", "/run/fifo", "/etc", OTHER_KIND, "/run/\0"]
MAC, HOST_MAC = "02:00:00:00:00:05", "02:00:00:00:00:06"


def make_pair(nl: Netlink, ns: netns.Netns, **more: int) -> None:
    spec = veth.VethSpec("veth0", HOST_MAC, "eth0", MAC, ns, **more)
    assert veth.create(nl, spec)


def test_a_bridge_has_its_mac_address_from_the_beginning(host: Host) -> None:
    def run() -> None:
        with Netlink() as nl:
            assert bridge.create(nl, "br0", MAC, 1400)
            assert not bridge.create(nl, "br0", HOST_MAC)
            made = link.get(nl, "br0")
            assert (made.kind, made.mac, made.mtu, made.is_up) == ("bridge", MAC, 1400, False)
            assert link.remove(nl, "br0")
            assert not link.remove(nl, "br0")

    host.call(run)


def test_the_peer_of_a_pair_is_born_in_the_other_namespace(host: Host) -> None:
    path = host.sandbox("c1").path

    def run() -> None:
        with netns.open_netns(path) as ns, Netlink() as nl, Netlink(ns) as inside:
            bridge.create(nl, "br0", link.new_mac())
            master = link.get(nl, "br0").index
            make_pair(nl, ns, mtu=1300, master=master)
            ours, theirs = link.get(nl, "veth0"), link.get(inside, "eth0")
            assert (ours.peer, theirs.peer) == (theirs.index, ours.index)
            assert (ours.mac, theirs.mac) == (HOST_MAC, MAC)
            assert (ours.mtu, theirs.mtu) == (1300, 1300)
            assert bridge.describe_port(ours) == bridge.Port()
            assert [each.name for each in link.list_links(nl, master)] == ["veth0"]
            assert link.find_by_index(inside, theirs.index) == theirs
            assert link.find(inside, "veth0") is None

    host.call(run)


def test_the_other_end_of_a_pair_just_made_is_known_without_a_question(host: Host) -> None:
    path = host.sandbox("c1").path

    def run() -> None:
        with netns.open_netns(path) as ns, Netlink() as nl, Netlink(ns) as inside:
            bridge.create(nl, "br0", link.new_mac())
            spec = veth.VethSpec("veth0", HOST_MAC, "eth0", MAC, ns, 1300, link.get(nl, "br0").index, 5)
            assert veth.create(nl, spec)
            # Its namespace's number for this one is the only thing that is not known.
            found = replace(link.get(inside, "eth0"), netnsid=None)
            assert veth.describe_container_end(link.get(nl, "veth0"), spec) == found

    host.call(run)


def test_several_links_are_looked_up_after_a_change_in_one_go(host: Host) -> None:
    def run() -> None:
        with Netlink() as nl:
            bridge.create(nl, "br0", MAC)
            bridge.create(nl, "br1", HOST_MAC)
            found = link.get_all(nl, ["br1", "br0"], link.set_owner("br0", "whose it is"))
            assert [(each.name, each.alias) for each in found] == [("br1", ""), ("br0", "whose it is")]
            with pytest.raises(CniError, match='failed to lookup "br2"'):
                link.get_all(nl, ["br0", "br2"], link.set_owner("br1", "another's"))
            assert link.get(nl, "br1").alias == "another's"
            # Refused for the same reason, but not about a link that is looked up.
            with pytest.raises(KernelError, match='could not set the alias of "br3"'):
                link.get_all(nl, ["br0"], link.set_owner("br3", "nobody's"))

    host.call(run)


def test_the_state_of_a_link_is_told_alone(host: Host) -> None:
    def run() -> None:
        with Netlink() as nl:
            bridge.create(nl, "br0", MAC)
            assert link.get_operstate(nl, "br0") == link.get(nl, "br0").operstate == "down"
            with pytest.raises(CniError, match='failed to lookup "br1"'):
                link.get_operstate(nl, "br1")

    host.call(run)


def test_a_taken_name_at_either_end_makes_no_pair(host: Host) -> None:
    path = host.sandbox("c1").path

    def run() -> None:
        with netns.open_netns(path) as ns, Netlink() as nl, Netlink(ns) as inside:
            make_pair(nl, ns)
            assert not veth.create(nl, veth.VethSpec("veth1", HOST_MAC, "eth0", MAC, ns))
            assert not veth.create(nl, veth.VethSpec("veth0", HOST_MAC, "eth1", MAC, ns))
            assert [each.name for each in link.list_links(nl)] == ["lo", "veth0"]
            assert [each.name for each in link.list_links(inside)] == ["lo", "eth0"]

    host.call(run)


def test_a_link_is_removed_only_if_it_is_the_one_that_was_made(host: Host) -> None:
    def run() -> None:
        with Netlink() as nl:
            bridge.create(nl, "br0", MAC)
            assert not link.remove_created(nl, "br0", HOST_MAC)
            assert link.remove_created(nl, "br0", MAC)
            assert not link.remove_created(nl, "br0", MAC)

    host.call(run)


def test_settings_of_a_port_are_seen(host: Host) -> None:
    path = host.sandbox("c1").path
    default = bridge_vlan.PortVlan(1, 1, pvid=True, untagged=True)
    default_vlans = {default} if has("vlan_filtering") else set()

    def run() -> None:
        with netns.open_netns(path) as ns, Netlink() as nl:
            bridge.create(nl, "br0", link.new_mac())
            make_pair(nl, ns, master=link.get(nl, "br0").index)
            index = link.get(nl, "veth0").index
            wanted = bridge.Port(hairpin=True, isolated=True)
            nl.batch(
                [
                    bridge.set_port("veth0", index, wanted),
                    link.set_alias("veth0", index, "whose it is"),
                    link.set_flags("veth0", index, on=link.IFF_UP | link.IFF_PROMISC),
                ]
            )
            found = link.get(nl, "veth0")
            assert (bridge.describe_port(found), found.alias) == (wanted, "whose it is")
            assert found.is_up
            assert found.is_promisc
            assert bridge_vlan.list_vlans(nl, index) == default_vlans
            nl.batch([link.set_master("veth0", index, 0), link.set_mtu("veth0", index, 1200)])
            assert (link.get(nl, "veth0").master, link.get(nl, "veth0").mtu) == (0, 1200)

    host.call(run)


def test_every_message_of_a_batch_is_answered_in_its_place(host: Host) -> None:
    def run() -> None:
        with Netlink() as nl:
            bridge.create(nl, "br0", MAC)
            index = link.get(nl, "br0").index
            refusals = nl.attempt(
                [
                    link.set_mtu("br0", index, 1400),
                    link.set_mtu("nowhere", 999, 1400),
                    link.set_flags("br0", index, on=link.IFF_UP),
                ]
            )
            assert [refusal and refusal.errno for refusal in refusals] == [None, errno.ENODEV, None]
            assert link.get(nl, "br0").is_up

    host.call(run)


def test_a_refusal_has_the_kernels_own_words(host: Host) -> None:
    def run() -> None:
        with Netlink() as nl:
            info = {"attrs": [("IFLA_INFO_KIND", "nonsense")]}
            attrs = [("IFLA_IFNAME", "x"), ("IFLA_LINKINFO", info)]
            nl.batch([Message("make a link", RTM_NEWLINK, 0x600, attrs=attrs)])

    with pytest.raises(KernelError) as caught:
        host.call(run)
    assert caught.value.msg == "make a link: operation not supported"
    assert caught.value.details == "kernel: Unknown device type"


def test_addresses_are_ensured_listed_and_removed(host: Host) -> None:
    path = host.sandbox("c1").path

    def run() -> None:
        with netns.open_netns(path) as ns, Netlink() as nl, Netlink(ns) as inside:
            make_pair(nl, ns)
            index = link.get(inside, "eth0").index
            wanted = [ip_interface("10.1.0.2/24"), ip_interface("10.1.1.2/32"), ip_interface("fd00::2/64")]
            for address in wanted:
                assert addr.ensure(inside, "eth0", index, address)
                assert not addr.ensure(inside, "eth0", index, address)
            inside.batch([link.set_flags("eth0", index, on=link.IFF_UP)])
            found = [each for each in addr.list_addrs(inside, index) if each.is_global]
            assert [each.address for each in found] == wanted
            assert not any(each.is_tentative or each.is_duplicate for each in found)
            assert addr.list_addrs(inside, 999) == []
            assert addr.remove(inside, "eth0", index, wanted[0])
            assert not addr.remove(inside, "eth0", index, wanted[0])
            assert not addr.remove(inside, "gone", 999, wanted[0])

    host.call(run)


def test_the_same_route_twice_is_no_error_but_another_refusal_is(host: Host) -> None:
    path = host.sandbox("c1").path
    routes = [
        Route(ip_network("0.0.0.0/0"), ip_address("10.1.0.1"), mtu=1300, advmss=1200),
        Route(ip_network("10.9.0.0/16"), ip_address("10.1.0.9"), priority=5, table=1000),
        Route(ip_network("10.8.0.0/16"), scope=253),
        Route(ip_network("::/0"), ip_address("fd00::1")),
    ]

    def run() -> None:
        with netns.open_netns(path) as ns, Netlink() as nl, Netlink(ns) as inside:
            make_pair(nl, ns)
            index, host_index = link.get(inside, "eth0").index, link.get(nl, "veth0").index
            for address in ("10.1.0.2/24", "fd00::2/64"):
                addr.ensure(inside, "eth0", index, ip_interface(address))
            nl.batch([link.set_flags("veth0", host_index, on=link.IFF_UP)])
            inside.batch([link.set_flags("eth0", index, on=link.IFF_UP)])
            for each in routes:
                assert route.ensure(inside, "eth0", index, each)
                assert not route.ensure(inside, "eth0", index, each)
                assert route.is_among(each, route.list_routes(inside, index))
            [default] = [each for each in route.list_routes(inside, 0) if each.mtu]
            assert (default.mtu, default.advmss, default.table) == (1300, 1200, 254)
            route.ensure(inside, "eth0", index, Route(ip_network("10.7.0.0/16"), ip_address("99.0.0.1")))

    with pytest.raises(KernelError) as caught:
        host.call(run)
    assert caught.value.msg.startswith(
        "failed to add route '10.7.0.0/16 via 99.0.0.1 dev eth0 metric 0 (Scope: 0"
    )
    assert caught.value.details == "kernel: Nexthop has invalid gateway"


def test_a_dump_survives_many_links(host: Host) -> None:
    lines = "".join(f"link add b{number} type bridge\n" for number in range(300))
    host.run(["ip", "-batch", "-"], lines)

    def run() -> int:
        with Netlink() as nl:
            return len(link.list_links(nl))

    assert host.call(run) == 301


@pytest.mark.parametrize("path", NO_NETNS)
def test_a_path_without_a_network_namespace_is_gone(host: Host, path: str) -> None:
    host.run(["mkfifo", "/run/fifo"])
    assert host.call(netns.is_gone, path)


def test_a_path_is_known_to_be_the_own_namespace_or_not(host: Host) -> None:
    path = host.sandbox("c1").path
    assert not host.call(netns.is_gone, path)
    assert not host.call(netns.is_own, path)
    assert not host.call(netns.is_own, "/run/nothing")
    assert host.call(netns.is_own, "/proc/self/ns/net")


def test_a_namespace_of_another_kind_is_told() -> None:
    with pytest.raises(CniError) as caught:
        netns.open_netns(OTHER_KIND)
    assert caught.value.code == 8
    assert caught.value.msg.endswith(f'"{OTHER_KIND}" is a namespace, but not one of the network kind')


def test_a_namespace_is_left_again_after_an_exception(host: Host) -> None:
    path = host.sandbox("c1").path

    def run() -> list[int]:
        seen = [netns.own().inode]
        with netns.open_netns(path) as ns:
            seen.append(ns.inode)
            with suppress(ZeroDivisionError), ns.entered():
                seen.append(netns.own().inode)
                raise ZeroDivisionError
            with netns.fresh():
                seen.append(netns.own().inode)
        return [*seen, netns.own().inode]

    home, there, entered, fresh, back = host.call(run)
    assert entered == there
    assert back == home
    assert len({home, there, fresh}) == 3


def test_a_sysctl_is_written_only_where_it_differs(host: Host) -> None:
    def run() -> None:
        key = "net/ipv4/ip_forward"
        assert sysctl.read(key) == "0"
        assert sysctl.ensure(key, "1") == "0"
        assert sysctl.ensure(key, "1") is None
        assert sysctl.read("net/ipv4/nonsense") is None
        sysctl.set_if_possible("net/ipv4/nonsense", "1")
        with pytest.raises(CniError, match="could not set sysctl net/ipv4/nonsense to 1: no such file"):
            sysctl.ensure("net/ipv4/nonsense", "1")

    host.call(run)


def list_infos(vlan: bridge_vlan.PortVlan) -> list[dict[str, int]]:
    """Read a message as pyroute2 does."""
    message = bridge_vlan.add("veth0", 7, (vlan,))
    shown = message_classes.decode(message.kind, message.body)
    assert (shown["family"], shown["index"]) == (AF_BRIDGE, 7)
    infos = shown.get_attr("IFLA_AF_SPEC")["attrs"]
    return [{"vid": info["vid"], "flags": info["flags"]} for name, info, *_ in infos]


def test_vlan_messages_are_the_kernels_structures() -> None:
    assert list_infos(bridge_vlan.PortVlan(5, 5, pvid=True, untagged=True)) == [{"vid": 5, "flags": 0x6}]
    assert list_infos(bridge_vlan.PortVlan(10, 12)) == [
        {"vid": 10, "flags": 0x8},
        {"vid": 12, "flags": 0x10},
    ]


def test_the_kernel_reads_the_vlans_of_a_port(host: Host) -> None:
    """A kernel without VLAN filtering still checks the ranges, so it must have understood them."""
    path = host.sandbox("c1").path

    def run() -> None:
        with netns.open_netns(path) as ns, Netlink() as nl:
            bridge.create(nl, "br0", link.new_mac())
            make_pair(nl, ns, master=link.get(nl, "br0").index)
            index = link.get(nl, "veth0").index
            nl.batch([bridge_vlan.add("veth0", index, (bridge_vlan.PortVlan(5, 9, pvid=True),))])

    with pytest.raises(KernelError) as caught:
        host.call(run)
    assert caught.value.msg == 'could not add VLAN 5-9 to bridge port "veth0": invalid argument'
    assert caught.value.details == "kernel: bridge: Pvid isn't allowed in a range"
