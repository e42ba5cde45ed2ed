"""Objects that attachments share in nftables: made once, undone by their maker, collected when unused."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni.errors import Code
from cni.firewall import nft
from cni.firewall.intents import FORWARD, MASQUERADE, PortMapping
from cni.firewall.nftables import base, records
from cni.kernel.nfnetlink import ChangedMeanwhileError, kept
from cni.request import Attachment
from cni.undo import Undo
from tests.netns.nftables_intents import (
    BACKEND,
    DNS,
    WEB,
    add,
    add_here,
    elements,
    forward,
    masquerade,
    owner_of,
    refused,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.testing import Host
    from cni.testing.snapshot import Snapshot

GO_RULESET = (Path(__file__).parent.parent / "data" / "go_nftables.nft").read_text(encoding="utf-8")


def fresh(host: Host) -> Snapshot:
    """Return the state of a host without any ADD, but for the folder in /run, which records the boot."""
    host.run(["mkdir", "--mode=0700", "/run/pycni"])
    return host.snapshot(exact=True)


@pytest.mark.parametrize("conditions", [(), ("ip", "saddr", "10.0.0.0/8")])
def test_a_failing_add_leaves_no_trace_on_a_fresh_host(host: Host, conditions: tuple[str, ...]) -> None:
    def fail_late() -> None:
        with Undo() as undo:
            BACKEND.apply(masquerade(), undo)
            BACKEND.apply(forward(conditions_v4=conditions), undo)
            raise TimeoutError

    before = fresh(host)
    with pytest.raises(TimeoutError):
        host.call(fail_late)
    assert before.differences(host.snapshot(exact=True)) == []


def test_a_failing_add_leaves_alone_what_others_made(host: Host) -> None:
    def fail_late() -> None:
        with Undo() as undo:
            BACKEND.apply(forward(), undo)
            add_here(masquerade(owner_of("cid2"), 3))
            raise TimeoutError

    with pytest.raises(TimeoutError):
        host.call(fail_late)
    assert host.call(BACKEND.differences, masquerade(owner_of("cid2"), 3)) == []


def test_a_second_add_that_fails_leaves_the_first_in_place(host: Host) -> None:
    def fail_late() -> None:
        with Undo() as undo:
            BACKEND.apply(forward(PortMapping("tcp", 8080, 81), number=7), undo)
            raise TimeoutError

    add(host, forward(WEB, DNS))
    add(host, forward(PortMapping("tcp", 9090, 80), owner=owner_of("cid2"), number=3))
    before = host.snapshot()
    with pytest.raises(TimeoutError):
        host.call(fail_late)
    assert before.differences(host.snapshot()) == []
    taken = forward(WEB, PortMapping("tcp", 9090, 80))
    assert refused(host, lambda: add_here(taken))[1] == Code.PORT_TAKEN
    assert before.differences(host.snapshot()) == []


def test_a_condition_that_nft_refuses_fails_without_a_trace(host: Host) -> None:
    before = fresh(host)
    intent = forward(WEB, conditions_v4=("ip", "saddr", "nonsense"))
    _, code, said = refused(host, lambda: add_here(intent))
    assert code == Code.FIREWALL
    assert said.startswith("could not publish ports of container cid1 on network net1: ")
    assert "nonsense" in said
    assert before.differences(host.snapshot(exact=True)) == []


def test_gc_removes_what_is_not_valid_and_keeps_other_networks(host: Host) -> None:
    for number in (2, 3):
        owner = owner_of(f"cid{number}")
        port = PortMapping("tcp", 8000 + number, 80)
        add(host, forward(port, owner=owner, number=number, conditions_v6=("iifname", "eth0")))
        add(host, masquerade(owner, number))
    other = owner_of("cid2", network="net2")
    add(host, masquerade(other, 4))
    assert host.call(BACKEND.collect, "net1", [Attachment("cid3", "eth0")]) == [
        'container "cid2" (interface "eth0" on network "net1")'
    ]
    assert elements(host)["ip ports"] == [[["tcp", 8003], ["10.22.0.3", 80]]]
    assert elements(host)["ip leaving-10.22.0.0/16"] == ["10.22.0.3", "10.22.0.4"]
    assert host.run(["nft", "list", "ruleset"]).count("jump conditional-") == 1
    assert host.run(["ls", str(records.FOLDER)]).count("\n") == 3


def test_gc_of_the_last_one_takes_the_tables_too(host: Host) -> None:
    before = host.snapshot()
    add(host, forward())
    add(host, masquerade())
    host.run(["rm", "-r", "/run/pycni"])
    host.call(BACKEND.collect, "net1", [])
    assert before.differences(host.snapshot()) == []


def test_rules_of_the_go_plugins_are_removed(host: Host) -> None:
    host.run(["nft", "-f", "-"], GO_RULESET)
    host.call(BACKEND.remove, owner_of(), FORWARD)
    host.call(BACKEND.remove, owner_of(), MASQUERADE)
    left = host.run(["nft", "list", "ruleset"])
    assert "cid1" not in left
    assert left.count("other") == 2


def test_gc_removes_masquerading_of_the_go_plugins(host: Host) -> None:
    host.run(["nft", "-f", "-"], GO_RULESET)
    removed = host.call(BACKEND.collect, "net1", [Attachment("cid1", "eth0")])
    assert removed == ['container "other" (interface "eth0" on network "net1")']
    assert host.run(["nft", "list", "ruleset"]).count("id: cid1") == 2


def test_a_thousand_ports_are_one_transaction(host: Host) -> None:
    mappings = tuple(PortMapping("tcp", 8000 + number, 8000 + number) for number in range(1001))
    add(host, forward(*mappings))
    assert len(elements(host)["ip6 ports"]) == 1001
    intent = forward(PortMapping("tcp", 9000, 1), owner=owner_of("cid2"), number=3)
    assert "host port 9000/tcp is taken" in refused(host, lambda: add_here(intent))[2]
    host.call(BACKEND.remove, owner_of(), FORWARD)
    assert elements(host) == {}


def test_parallel_first_adds_make_one_ruleset(host: Host) -> None:
    count = 16

    def add_all() -> None:
        children = [_in_child(_add_one, number) for number in range(count)]
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * count

    host.call(add_all)
    rules = host.run(["nft", "list", "ruleset"])
    assert rules.count("table ip pycni {") == 1
    assert rules.count("jump host_ports") == 4
    assert rules.count("ip saddr 10.22.0.0/16 ip daddr . meta") == 1
    assert rules.count("ip saddr 10.22.0.0/16 ip daddr @gateway-10.22.0.0/16") == 1
    assert len(elements(host)["ip ports"]) == count
    assert len(elements(host)["ip leaving-10.22.0.0/16"]) == count

    def remove_all() -> None:
        children = [_in_child(_remove_one, number) for number in range(count)]
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * count

    host.call(remove_all)
    assert elements(host) == {}


def _add_one(number: int) -> None:
    owner = owner_of(f"cid{number}")
    add_here(masquerade(owner, 2 + number))
    add_here(forward(PortMapping("tcp", 8000 + number, 80), owner=owner, number=2 + number))


def _remove_one(number: int) -> None:
    BACKEND.remove(owner_of(f"cid{number}"), FORWARD)
    BACKEND.remove(owner_of(f"cid{number}"), MASQUERADE)


def _in_child(step: Callable[[int], None], number: int) -> int:
    child = os.fork()
    if child:
        return child
    try:
        step(number)
        os._exit(0)
    finally:
        os._exit(1)


def test_a_batch_bound_to_an_old_generation_is_refused(host: Host) -> None:
    def late() -> None:
        number = nft.generation()
        nft.run_text("add table ip other", "make a table")
        kept().commit([nft.delete_table(nft.IPV4, "other")], number)

    assert refused(host, late)[0] == ChangedMeanwhileError.__name__
    assert "other" in host.run(["nft", "list", "tables"])


def test_an_unused_subnet_is_removed_only_while_nobody_uses_it(host: Host) -> None:
    add(host, masquerade())
    shared = host.call(base.list_shared)
    host.call(base.remove_unused, shared)
    assert host.call(base.list_shared) == shared
    host.call(BACKEND.remove, owner_of(), MASQUERADE)
    host.call(base.remove_unused, shared)
    assert host.call(base.list_shared) == []


def test_the_reason_why_it_cannot_be_used_is_reported(host: Host) -> None:
    assert host.call(BACKEND.unusable_because) == ""
    command = (
        "from cni.firewall.nftables.backend import Nftables; print(Nftables().unusable_because(), end='')"
    )
    said = host.run(
        ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", sys.executable, "-c", command]
    )
    assert said == "nftables may not be used: CAP_NET_ADMIN is missing"


def test_kernel_errors_carry_what_was_being_done(host: Host) -> None:
    def delete_what_is_not_there() -> None:
        kept().commit([nft.delete_table(nft.IPV4, "nowhere")])

    said = refused(host, delete_what_is_not_there)[2]
    assert said.startswith("delete table ip nowhere: no such file or directory")
