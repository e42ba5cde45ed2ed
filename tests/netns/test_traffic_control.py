"""Queueing disciplines, classes and filters as the kernel has them, and what they do to traffic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pyroute2.netlink.rtnl.tcmsg import tcmsg

from cni.errors import KernelError
from cni.kernel import ifb, link, netns, tc, veth
from cni.kernel.rtnetlink import Netlink
from cni.kernel.tc import HtbClass, Key, Tbf

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.kernel.rtnetlink import Message
    from cni.testing import Host

MAC, HOST_MAC, IFB_MAC = "02:00:00:00:00:05", "02:00:00:00:00:06", "02:00:00:00:00:07"
MEGABIT = 125_000
LATENCY_US = 25_000
WIDE = 10_000_000_000


def with_pair(host: Host, work: Callable[[Netlink, int], None]) -> None:
    path = host.sandbox("c1").path

    def run() -> None:
        with netns.open_netns(path) as ns, Netlink() as nl:
            assert veth.create(nl, veth.VethSpec("veth0", HOST_MAC, "eth0", MAC, ns))
            work(nl, link.get(nl, "veth0").index)

    host.call(run)


def test_the_numbers_of_a_bucket_are_those_of_the_go_plugins() -> None:
    """Taken from a kernel after the Go plugin bandwidth v1.9.1, which wraps at 32 bits."""
    assert Tbf.from_burst(MEGABIT, 4294967295 // 8, LATENCY_US) == Tbf(MEGABIT, 0x9FFFFF83, 536874036)


@pytest.mark.parametrize("rate", [MEGABIT, 1000, WIDE])
def test_a_bucket_is_added_found_and_removed(host: Host, rate: int) -> None:
    def work(nl: Netlink, index: int) -> None:
        wanted = Tbf.from_burst(rate, max(rate // 10, 2000), LATENCY_US)
        before = tc.find_qdisc(nl, "veth0", index)
        assert before is None
        assert not tc.remove_qdisc(nl, "veth0", index)
        nl.batch([tc.add_tbf("veth0", index, wanted)])
        found = tc.find_qdisc(nl, "veth0", index)
        assert found is not None
        assert (found.kind, found.handle, found.parent) == ("tbf", tc.handle(1), tc.ROOT)
        assert found.tbf == wanted
        with pytest.raises(KernelError) as caught:
            nl.batch([tc.add_tbf("veth0", index, wanted)])
        assert caught.value.msg == 'could not add qdisc tbf to "veth0": file exists'
        assert tc.remove_qdisc(nl, "veth0", index)
        assert not tc.remove_qdisc(nl, "veth0", index)
        assert tc.find_qdisc(nl, "veth0", index) == before
        assert not tc.remove_qdisc(nl, "gone", 4711)
        assert tc.find_qdisc(nl, "gone", 4711) is None

    with_pair(host, work)


def test_tc_shows_what_was_added(host: Host) -> None:
    def work(nl: Netlink, index: int) -> None:
        nl.batch([tc.add_tbf("veth0", index, Tbf.from_burst(MEGABIT, 10_000, LATENCY_US))])

    with_pair(host, work)
    [shown] = host.json(["tc", "-j", "qdisc", "show", "dev", "veth0"])
    assert (shown["kind"], shown["handle"], shown["root"]) == ("tbf", "1:", True)
    assert shown["options"]["rate"] == MEGABIT
    assert shown["options"]["burst"] == 10_000


def test_packets_that_a_link_receives_are_redirected(host: Host) -> None:
    def work(nl: Netlink, index: int) -> None:
        assert ifb.create(nl, "ifb7", IFB_MAC, 1400)
        assert not ifb.create(nl, "ifb7", IFB_MAC)
        made = link.get(nl, "ifb7")
        assert (made.kind, made.mac, made.mtu) == ("ifb", IFB_MAC, 1400)
        assert tc.find_qdisc(nl, "veth0", index, tc.INGRESS) is None
        assert tc.list_filters(nl, "veth0", index) == []
        nl.batch(
            [
                link.set_flags("ifb7", made.index, on=link.IFF_UP),
                tc.add_ingress("veth0", index),
                tc.add_redirect("veth0", index, made.index),
            ]
        )
        found = tc.find_qdisc(nl, "veth0", index, tc.INGRESS)
        assert found is not None
        assert (found.kind, found.tbf) == ("ingress", None)
        [redirect] = tc.list_filters(nl, "veth0", index)
        assert (redirect.kind, redirect.priority) == ("u32", 1)
        assert redirect.redirected_to == made.index
        assert tc.remove_qdisc(nl, "veth0", index, tc.INGRESS)
        assert tc.list_filters(nl, "veth0", index) == []
        assert link.remove(nl, "ifb7")

    with_pair(host, work)


def test_classes_are_added_and_listed(host: Host) -> None:
    wanted = [
        HtbClass(tc.handle(1, 1), tc.ROOT, WIDE, WIDE),
        HtbClass(tc.handle(1, 0x30), tc.handle(1, 1), MEGABIT, 10 * MEGABIT),
    ]

    def work(nl: Netlink, index: int) -> None:
        assert tc.list_classes(nl, "veth0", index) == []
        nl.batch([tc.add_htb("veth0", index, 0x30), *(tc.add_class("veth0", index, each) for each in wanted)])
        assert sorted(tc.list_classes(nl, "veth0", index)) == wanted
        # 10.2.0.0/16 as the destination: 16 bytes into the header.
        key = Key(0x0A020000, 0xFFFF0000, 16)
        nl.batch([tc.add_class_filter("veth0", index, wanted[0].handle, [key], priority=3)])
        [shown] = tc.list_filters(nl, "veth0", index, tc.handle(1))
        assert (shown.classid, shown.priority, shown.redirected_to) == (wanted[0].handle, 3, 0)

    with_pair(host, work)
    shown = host.run(["tc", "class", "show", "dev", "veth0"])
    assert "class htb 1:1 root rate 80Gbit ceil 80Gbit " in shown
    assert "class htb 1:30 parent 1:1 prio 0 rate 1Mbit ceil 10Mbit " in shown


def count_sent(host: Host, link_name: str) -> int:
    [shown] = host.json(["tc", "-s", "-j", "qdisc", "show", "dev", link_name, "root"])
    return int(shown["packets"])


def test_traffic_of_a_container_passes_the_bucket_of_its_ifb(host: Host) -> None:
    """As in the plugin bandwidth: what the container sends is shaped on the ifb."""
    sandbox = host.sandbox("c1")

    def run() -> None:
        with netns.open_netns(sandbox.path) as ns, Netlink() as nl:
            veth.create(nl, veth.VethSpec("veth0", HOST_MAC, "eth0", MAC, ns))
            ifb.create(nl, "ifb7", IFB_MAC)
            end, made = link.get(nl, "veth0"), link.get(nl, "ifb7")
            shape = Tbf.from_burst(100 * MEGABIT, 100_000, LATENCY_US)
            nl.batch(
                [
                    link.set_flags("ifb7", made.index, on=link.IFF_UP),
                    link.set_flags("veth0", end.index, on=link.IFF_UP),
                    tc.add_ingress("veth0", end.index),
                    tc.add_redirect("veth0", end.index, made.index),
                    tc.add_tbf("ifb7", made.index, shape),
                ]
            )

    host.call(run)
    host.run(["ip", "addr", "add", "10.1.0.1/24", "dev", "veth0"])
    sandbox.run(["ip", "addr", "add", "10.1.0.2/24", "dev", "eth0"])
    sandbox.run(["ip", "link", "set", "eth0", "up"])
    before = count_sent(host, "ifb7")
    sandbox.run(["ping", "-c", "3", "-i", "0.2", "-W", "5", "10.1.0.1"])
    assert count_sent(host, "ifb7") >= before + 3


def decoded(message: Message) -> Any:
    """Read a message as pyroute2 does."""
    header = (16 + len(message.body)).to_bytes(4, "little") + message.kind.to_bytes(2, "little")
    shown = tcmsg(header + bytes(10) + message.body)
    shown.decode()
    return shown


def test_a_bucket_is_what_pyroute2_reads() -> None:
    shown = decoded(tc.add_tbf("veth0", 7, Tbf(MEGABIT, 11, 22)))
    assert (shown["index"], shown["handle"], shown["parent"]) == (7, 0x10000, tc.ROOT)
    assert shown.get_attr("TCA_KIND") == "tbf"
    parms = shown.get_attr("TCA_OPTIONS").get_attr("TCA_TBF_PARMS")
    assert (parms["rate"], parms["buffer"], parms["limit"], parms["peak"]) == (MEGABIT, 11, 22, 0)


def test_a_redirection_is_what_pyroute2_reads() -> None:
    shown = decoded(tc.add_redirect("veth0", 7, 9))
    assert (shown["index"], shown["parent"], shown["info"]) == (7, 0xFFFF0000, 1 << 16 | 0x0300)
    options = shown.get_attr("TCA_OPTIONS")
    [key] = options.get_attr("TCA_U32_SEL")["keys"]
    assert (key["key_val"], key["key_mask"]) == (0, 0)
    action = options.get_attr("TCA_U32_ACT").get_attr("TCA_ACT_PRIO_1")
    assert action.get_attr("TCA_ACT_KIND") == "mirred"
    parms = action.get_attr("TCA_ACT_OPTIONS").get_attr("TCA_MIRRED_PARMS")
    assert (parms["eaction"], parms["action"], parms["ifindex"]) == (1, 4, 9)
