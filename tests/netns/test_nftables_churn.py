"""Many processes add, check, fail, collect and remove in nftables at the same time."""

from __future__ import annotations

import os
import traceback
from contextlib import suppress
from ipaddress import ip_interface
from typing import TYPE_CHECKING

from cni.firewall import spoofcheck
from cni.firewall.intents import FORWARD, MASQUERADE, Masquerade, Owner, PortMapping
from cni.request import Attachment
from cni.undo import Undo
from tests.netns.nftables_intents import BACKEND, elements, forward, masquerade, owner_of

if TYPE_CHECKING:
    from cni.testing import Host

PROCESSES = 8
ROUNDS = 4


def test_parallel_churn_has_no_errors_and_leaves_nothing(host: Host) -> None:
    def all_at_once() -> None:
        children = [_start(number) for number in range(PROCESSES)]
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * PROCESSES

    host.call(all_at_once)
    assert elements(host) == {}
    host.call(BACKEND.collect, "net1", [])
    assert "pycni" not in host.run(["nft", "list", "tables"])
    assert "macspoofchk" not in host.run(["nft", "list", "ruleset"])


def _start(number: int) -> int:
    child = os.fork()
    if child:
        return child
    try:
        for turn in range(ROUNDS):
            _live(number)
            _fail(number, turn)
        os._exit(0)
    except BaseException:  # noqa: BLE001 - the parent fails the test
        traceback.print_exc()
    finally:
        os._exit(1)


def _live(number: int) -> None:
    owner = owner_of(f"cid{number}")
    ports = forward(PortMapping("tcp", 8000 + number, 80), owner=owner, number=2 + number)
    addresses = masquerade(owner, 2 + number)
    with Undo() as undo:
        BACKEND.apply(addresses, undo)
        BACKEND.apply(ports, undo)
        spoofcheck.ensure(owner, f"veth{number}", "0a:00:00:00:00:02", undo)
    assert BACKEND.differences(ports) == []
    assert BACKEND.differences(addresses) == []
    if number == 0:
        BACKEND.collect("net1", [Attachment(f"cid{each}", "eth0") for each in range(PROCESSES)])
    BACKEND.remove(owner, FORWARD)
    BACKEND.remove(owner, MASQUERADE)
    spoofcheck.remove(owner)


def _fail(number: int, turn: int) -> None:
    """Make the first use of a subnet, together with others, and take it back."""
    owner = Owner("net2", f"cid{number}", "eth1")
    intent = Masquerade(owner, (ip_interface(f"10.{30 + turn}.0.{2 + number}/24"),))
    with suppress(TimeoutError), Undo() as undo:
        BACKEND.apply(intent, undo)
        raise TimeoutError
