"""The ledger of host ports: who holds what, and when a holder holds nothing any more."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from cni.errors import CniError, Code
from cni.firewall.intents import Owner, PortMapping
from cni.hostports import ledger
from cni.request import Attachment
from cni.undo import Undo

if TYPE_CHECKING:
    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")

ONE, TWO = Owner("net1", "c1", "eth0"), Owner("net1", "c2", "eth0")


@pytest.fixture
def machine(host: Host) -> Host:
    """Return a host with the namespaces of two containers."""
    host.sandbox("c1")
    host.sandbox("c2")
    return host


def web(host_ip: str = "", port: int = 8080, protocol: str = "tcp") -> PortMapping:
    return PortMapping(protocol, port, 80, ip_address(host_ip) if host_ip else None)


def claim(owner: Owner, *mappings: PortMapping) -> list[Owner]:
    with ledger.claim(owner, mappings, f"/run/netns/{owner.container_id}", Undo()) as former:
        for each in former:
            ledger.forget(each)
        return former


def is_taken(owner: Owner, *mappings: PortMapping) -> bool:
    try:
        claim(owner, *mappings)
    except CniError as error:
        return error.code == Code.PORT_TAKEN
    return False


ANY4, ANY6 = "0.0.0.0", "::"  # noqa: S104 - what a user may write


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("", "", True),
        ("", "10.1.1.1", True),
        ("", "::1", True),
        (ANY4, "10.1.1.1", True),
        (ANY6, "fd00::1", True),
        ("10.1.1.1", "10.1.1.1", True),
        ("10.1.1.1", "10.1.1.2", False),
        (ANY4, ANY6, False),
        (ANY4, "fd00::1", False),
        (ANY6, "10.1.1.1", False),
    ],
)
def test_addresses_overlap_where_a_packet_can_be_for_both(one: str, other: str, *, overlap: bool) -> None:
    first, second = web(one).host_ip, web(other).host_ip
    assert ledger.overlap(first, second) is ledger.overlap(second, first) is overlap


def test_a_port_is_taken_on_overlapping_addresses_only(machine: Host) -> None:
    def check() -> list[bool]:
        claim(ONE, web("10.1.1.1"))
        asked = [web(), web(ANY4), web("10.1.1.1"), web("10.1.1.2"), web(ANY6), web(port=81)]
        return [is_taken(TWO, each) for each in (*asked, web(protocol="udp"))]

    assert machine.call(check) == [True, True, True, False, False, False, False]


def test_the_holder_is_named(machine: Host) -> None:
    def check() -> str:
        claim(ONE, web("10.1.1.1"))
        with pytest.raises(CniError) as refusal:
            claim(TWO, web("", 80), web())
        assert ledger.list_held(TWO) == ()
        return str(refusal.value)

    said = machine.call(check)
    assert said.startswith('host port 8080/tcp is already published on 10.1.1.1 by container "c1"')
    assert 'eth0 on network "net1"' in said


def test_a_container_may_publish_a_port_on_each_of_its_networks(machine: Host) -> None:
    def check() -> list[bool]:
        other_network = Owner("net2", "c1", "eth1")
        found = [is_taken(ONE, web()), is_taken(ONE, web()), is_taken(other_network, web())]
        ledger.release(ONE)
        found.append(is_taken(TWO, web()))
        ledger.release(other_network)
        return [*found, is_taken(TWO, web())]

    assert machine.call(check) == [False, False, False, True, False]


def test_claiming_again_gives_up_what_is_not_wanted_any_more(machine: Host) -> None:
    def check() -> list[bool]:
        claim(ONE, web("", 80), web("", 81), web("10.1.1.1", 82), web("10.1.1.2", 82))
        claim(ONE, web("", 81), web("10.1.1.2", 82))
        return [is_taken(TWO, web("", 80)), is_taken(TWO, web("", 81)), is_taken(TWO, web("10.1.1.1", 82))]

    assert machine.call(check) == [False, True, False]


def test_release_leaves_no_file(host: Host) -> None:
    host.sandbox("c1")
    before = host.snapshot()
    host.call(claim, ONE, web("", 80), web("::1", 80), web("", 81))
    assert host.call(ledger.list_held, ONE) == tuple(
        PortMapping(each.protocol, each.host_port, 0, each.host_ip)
        for each in (web("", 80), web("::1", 80), web("", 81))
    )
    host.call(ledger.release, ONE)
    host.call(ledger.release, ONE)
    assert before.differences(host.snapshot()) == []


@pytest.mark.parametrize("claimed_before", [False, True])
def test_undo_restores_the_ledger(host: Host, *, claimed_before: bool) -> None:
    host.sandbox("c1")
    if claimed_before:
        host.call(claim, ONE, web("", 80), web("", 81))
    before = host.snapshot()

    def fail() -> None:
        wanted = [web("", 81), web("", 82)]
        with suppress(KeyError), Undo() as undo, ledger.claim(ONE, wanted, "/run/netns/c1", undo):
            raise KeyError

    host.call(fail)
    assert before.differences(host.snapshot()) == []


def test_a_holder_whose_namespace_is_gone_or_another_is_replaced_and_named(host: Host) -> None:
    c1 = host.sandbox("c1")
    host.sandbox("c2")
    host.call(claim, ONE, web("", 80), web("", 81))
    c1.delete()
    assert host.call(claim, TWO, web("", 80)) == [ONE]
    assert host.call(ledger.list_held, ONE) == ()
    c1 = host.sandbox("c1")
    host.call(claim, ONE, web("", 90))
    # Another one of the same name, with another inode.
    host.run(["ip", "netns", "add", "c3"])
    host.run(["mount", "--bind", "/run/netns/c3", c1.path])
    assert host.call(claim, TWO, web("", 90)) == [ONE]


def test_invalid_holders_of_a_network_are_listed(machine: Host) -> None:
    def check() -> list[Owner]:
        claim(ONE, web(port=80))
        claim(TWO, web(port=81))
        claim(Owner("net2", "c2", "eth0"), web(port=82))
        return ledger.list_invalid("net1", {Attachment("c1", "eth0")})

    assert machine.call(check) == [TWO]
    assert machine.call(ledger.list_invalid, "net3", ()) == []


def test_leases_of_an_earlier_boot_have_no_living_holder(host: Host) -> None:
    host.sandbox("c1")
    host.call(claim, ONE, web(port=80))
    assert host.call(ledger.list_live, "net1") == [ONE]
    before = host.snapshot(exact=True)
    host.run(["tee", "/run/pycni/boot"], "another\n")
    # Its namespace may have the device and inode that one of today has.
    assert host.call(ledger.list_live, "net1") == []
    assert before.differences(host.snapshot(exact=True)) == []


def test_files_that_are_no_claims_hold_nothing(host: Host) -> None:
    host.sandbox("c1")
    host.sandbox("c2")
    host.call(claim, ONE, web())
    host.run(["sh", "-c", "for f in /run/pycni/hostports/by-owner/*; do echo '{\"network\": 1' > $f; done"])
    assert host.call(is_taken, TWO, web()) is False
    host.run(["sh", "-c", "echo '[[1]]' > /run/pycni/hostports/tcp-8080"])
    assert host.call(is_taken, TWO, web()) is False
