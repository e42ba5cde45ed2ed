"""The nftables backend writes, finds, replaces and deletes rules, in the kernel's own view."""

from __future__ import annotations

from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

import pytest

from cni.errors import Code
from cni.firewall.intents import FORWARD, MASQUERADE, Masquerade, PortForward, PortMapping
from cni.firewall.nftables import base, records
from tests.netns.nftables_intents import (
    BACKEND,
    DNS,
    TLS,
    WEB,
    add,
    add_here,
    elements,
    forward,
    masquerade,
    owner_of,
    refused,
    targets_of,
)

if TYPE_CHECKING:
    from cni.testing import Host


def test_forward_elements_say_who_is_reached(host: Host) -> None:
    add(host, forward())
    assert elements(host) == {
        "ip ports": [[["tcp", 8080], ["10.22.0.2", 80]]],
        "ip host_ip_ports": [[["10.1.1.1", "udp", 5353], ["10.22.0.2", 53]]],
        "ip hairpin-10.22.0.0/16": [["10.22.0.2", "tcp", 80], ["10.22.0.2", "udp", 53]],
        "ip6 ports": [[["tcp", 8080], ["fd00:22::2", 80]]],
        "ip6 host_ip_ports": [[["2001:db8::1", "tcp", 8443], ["fd00:22::2", 443]]],
        "ip6 hairpin-fd00-22--/64": [["fd00:22::2", "tcp", 443], ["fd00:22::2", "tcp", 80]],
    }


def test_without_snat_there_are_no_hairpin_elements(host: Host) -> None:
    add(host, forward(WEB, snat=False))
    assert set(elements(host)) == {"ip ports", "ip6 ports"}


def test_masq_all_elements_are_of_no_subnet(host: Host) -> None:
    add(host, forward(WEB, masq_all=True))
    assert elements(host)["ip masquerade_all"] == [["10.22.0.2", "tcp", 80]]


def test_masquerade_elements_are_the_addresses(host: Host) -> None:
    add(host, masquerade())
    assert elements(host) == {
        "ip leaving-10.22.0.0/16": ["10.22.0.2"],
        "ip6 leaving-fd00-22--/64": ["fd00:22::2"],
    }


def test_masquerading_of_overlapping_subnets_is_possible(host: Host) -> None:
    for prefix, number in (("16", 2), ("24", 3)):
        owner = owner_of(f"cid{number}")
        add(host, Masquerade(owner, (ip_interface(f"10.22.0.{number}/{prefix}"),)))
    assert set(elements(host)) == {"ip leaving-10.22.0.0/16", "ip leaving-10.22.0.0/24"}


def test_the_comment_is_the_one_of_the_go_plugins(host: Host) -> None:
    add(host, masquerade())
    expected = "8e48f37d5de60467-0b65a318f52e521b, net: net1, if: eth0, id: cid1"
    assert host.run(["nft", "list", "ruleset"]).count(expected) == 2


def test_long_container_ids_are_distinguished(host: Host) -> None:
    ids = [f"default-{'a' * 100}{suffix}" for suffix in "xy"]
    for number, container_id in enumerate(ids):
        port = PortMapping("tcp", 8080 + number, 80)
        add(host, forward(port, owner=owner_of(container_id), number=2 + number))
    host.call(BACKEND.remove, owner_of(ids[0]), FORWARD)
    assert elements(host)["ip ports"] == [[["tcp", 8081], ["10.22.0.3", 80]]]


def test_add_twice_changes_nothing(host: Host) -> None:
    for _ in range(2):
        add(host, forward())
        add(host, masquerade())
        first = host.snapshot()
    assert first.differences(host.snapshot()) == []
    assert host.call(BACKEND.differences, forward()) == []


def test_a_second_add_of_the_same_owner_replaces(host: Host) -> None:
    add(host, forward(WEB, DNS))
    add(host, forward(PortMapping("tcp", 8080, 81), number=7))
    assert elements(host)["ip ports"] == [[["tcp", 8080], ["10.22.0.7", 81]]]
    assert "ip host_ip_ports" not in elements(host)
    host.call(BACKEND.remove, owner_of(), FORWARD)
    assert elements(host) == {}


def test_a_second_add_replaces_without_the_record_too(host: Host) -> None:
    add(host, forward(WEB))
    host.run(["rm", "-r", "/run/pycni"])
    add(host, forward(WEB, number=7))
    assert elements(host)["ip ports"] == [[["tcp", 8080], ["10.22.0.7", 80]]]


def test_a_taken_port_names_its_holder_and_nothing_is_changed(host: Host) -> None:
    add(host, forward(WEB))
    before = host.snapshot(exact=True)
    intent = forward(PortMapping("tcp", 80, 80), WEB, owner=owner_of("cid2"), number=3)
    _, code, said = refused(host, lambda: add_here(intent))
    assert code == Code.PORT_TAKEN
    assert said.startswith(
        'host port 8080/tcp is taken by container "cid1" (interface "eth0" on network "net1")'
    )
    assert before.differences(host.snapshot(exact=True)) == []


def test_removal_keeps_an_element_that_another_owner_has_taken_over(host: Host) -> None:
    add(host, masquerade(owner_of("dead")))
    add(host, masquerade(owner_of("alive")))
    host.call(BACKEND.remove, owner_of("dead"), MASQUERADE)
    assert host.call(BACKEND.differences, masquerade(owner_of("alive"))) == []


@pytest.mark.parametrize("with_record", [True, False])
def test_removal_takes_what_is_the_owners_and_nothing_else(host: Host, *, with_record: bool) -> None:
    add(host, forward(PortMapping("tcp", 9090, 80), owner=owner_of("cid2"), number=3))
    add(host, masquerade(owner_of("cid2"), 3))
    if not with_record:
        host.run(["rm", "-r", str(records.FOLDER)])
    before = host.snapshot()
    add(host, forward())
    add(host, masquerade())
    if not with_record:
        host.run(["sh", "-c", f"rm {records.FOLDER}/*"])
    for _ in range(2):
        host.call(BACKEND.remove, owner_of(), FORWARD)
        host.call(BACKEND.remove, owner_of(), MASQUERADE)
    assert before.differences(host.snapshot()) == []


def test_without_a_record_maps_are_read_only_when_records_were_lost(host: Host) -> None:
    assert host.call(base.has_complete_records)
    add(host, forward())
    assert host.call(base.has_complete_records)
    host.run(["rm", "-r", "/run/pycni"])
    assert not host.call(base.has_complete_records)
    add(host, masquerade())
    assert not host.call(base.has_complete_records)


@pytest.mark.parametrize("with_record", [True, False])
def test_forward_and_masquerade_are_removed_apart(host: Host, *, with_record: bool) -> None:
    add(host, forward())
    add(host, masquerade())
    if not with_record:
        host.run(["rm", "-r", "/run/pycni"])
    host.call(BACKEND.remove, owner_of(), FORWARD)
    assert host.call(BACKEND.differences, masquerade()) == []
    assert set(elements(host)) == {"ip leaving-10.22.0.0/16", "ip6 leaving-fd00-22--/64"}


def test_a_key_that_has_passed_to_another_is_not_removed(host: Host) -> None:
    add(host, forward(WEB))
    host.run(["nft", "flush map ip pycni ports; flush map ip6 pycni ports"])
    add(host, forward(WEB, owner=owner_of("cid2"), number=3))
    host.call(BACKEND.remove, owner_of(), FORWARD)
    assert host.call(BACKEND.differences, forward(WEB, owner=owner_of("cid2"), number=3)) == []


def test_removal_succeeds_where_there_is_nothing(host: Host) -> None:
    before = host.snapshot(exact=True)
    host.call(BACKEND.remove, owner_of(), FORWARD)
    host.call(BACKEND.remove, owner_of(), MASQUERADE)
    assert host.call(BACKEND.collect, "net1", []) == []
    assert before.differences(host.snapshot(exact=True)) == []


def test_a_corrupt_record_does_not_keep_the_rules(host: Host) -> None:
    add(host, forward())
    host.run(["sh", "-c", f"for f in {records.FOLDER}/*; do echo '[[1' > $f; done"])
    host.call(BACKEND.remove, owner_of(), FORWARD)
    assert elements(host) == {}


def test_conditions_are_found_replaced_and_removed(host: Host) -> None:
    add(host, forward(WEB, owner=owner_of("cid2"), number=3))
    before = host.snapshot()
    intent = forward(
        PortMapping("tcp", 9090, 80),
        conditions_v4=("ip", "saddr", "{", "10.0.0.0/8,", "192.0.2.1", "}"),
        conditions_v6=("iifname", '"eth0"'),
    )
    for _ in range(2):
        add(host, intent)
        assert host.call(BACKEND.differences, intent) == []
    rules = host.run(["nft", "list", "ruleset"])
    assert rules.count("jump conditional-") == 2
    assert rules.count("dport 9090 dnat to") == 2
    host.call(BACKEND.remove, owner_of(), FORWARD)
    assert before.differences(host.snapshot()) == []


def test_ports_of_a_container_on_two_networks_pass_to_the_second(host: Host) -> None:
    first = forward(WEB, TLS)
    second = forward(WEB, TLS, owner=owner_of(ifname="eth1", network="net2"), number=9)
    add(host, first)
    for _ in range(2):
        add(host, second)
    assert elements(host)["ip ports"] == [[["tcp", 8080], ["10.22.0.2", 80]]]
    assert host.call(BACKEND.differences, second) == []
    host.call(BACKEND.remove, first.owner, FORWARD)
    assert "ip ports" not in elements(host)
    assert host.call(BACKEND.differences, second) == []
    assert "tcp dport 8080 dnat to 10.22.0.9:80" in host.run(["nft", "list", "ruleset"])
    host.call(BACKEND.remove, second.owner, FORWARD)
    assert elements(host) == {}
    assert "dport 8080" not in host.run(["nft", "list", "ruleset"])


@pytest.mark.parametrize("options", [{"snat": False}, {"masq_all": True}, {}])
def test_check_asks_for_no_more_than_add_makes(host: Host, options: Any) -> None:
    add(host, Masquerade(owner_of("other"), (ip_interface("10.99.0.2/16"),)))
    for mappings in ((WEB,), (DNS,), (TLS,)):
        add(host, forward(*mappings, **options))
        assert host.call(BACKEND.differences, forward(*mappings, **options)) == []
    of_the_other_family = PortForward(owner_of(), (TLS,), targets_of()[:1], **options)
    add(host, of_the_other_family)
    assert host.call(BACKEND.differences, of_the_other_family) == []


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("delete element ip pycni ports { tcp . 8080 }", "host port 8080/tcp is not in nftables"),
        ("delete element ip6 pycni leaving-fd00-22--/64 { fd00:22::2 }", "masquerading of fd00:22::2 is not"),
        ("flush chain ip pycni prerouting", "chain prerouting of nftables table ip pycni lacks"),
        ("flush chain ip6 pycni host_ports", "chain host_ports of nftables table ip6 pycni lacks"),
        ("flush chain ip pycni leaving", "chain leaving of nftables table ip pycni has no rule for subnet"),
        ("delete table ip pycni", "nftables table ip pycni does not exist"),
    ],
)
def test_check_names_what_is_missing(host: Host, damage: str, told: str) -> None:
    add(host, forward())
    add(host, masquerade())
    host.run(["nft", damage])
    found = host.call(BACKEND.differences, forward())
    found += host.call(BACKEND.differences, masquerade())
    assert any(each.startswith(told) for each in found), found


def test_check_names_whom_a_port_leads_to_instead(host: Host) -> None:
    add(host, forward(WEB))
    host.run(["nft", "delete element ip pycni ports { tcp . 8080 }"])
    add(host, PortForward(owner_of("cid2"), (WEB,), targets_of(3)[:1]))
    [found] = host.call(BACKEND.differences, forward(WEB))
    assert found == 'host port 8080/tcp belongs to container "cid2" (interface "eth0" on network "net1")'


def test_a_flushed_ruleset_is_set_up_again(host: Host) -> None:
    add(host, forward())
    host.run(["nft", "flush", "ruleset"])
    add(host, forward())
    assert host.call(BACKEND.differences, forward()) == []
