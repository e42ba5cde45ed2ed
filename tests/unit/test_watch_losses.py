"""Which announcements of nf_tables are losses of containers, and of which ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.firewall import nft
from cni.firewall.intents import Owner
from cni.firewall.losses import Transactions, texts
from cni.firewall.owners import comment
from cni.kernel.announcements import Announcement
from cni.kernel.attributes import attribute, text, u32
from cni.runtime.belongings import Register
from cni.runtime.cache import Cache, Entry

if TYPE_CHECKING:
    from pathlib import Path

NEW_TABLE, DELETED_TABLE, NEW_RULE, DELETED_RULE, GENERATION = map(nft.kind, (0, 2, 6, 8, 15))
OWNER, OTHER = Owner("web", "cnitool-0123456789", "eth0"), Owner("web", "cnitool-9876543210", "eth0")


def rule(chain: str, content: str, table: str = "pycni") -> bytes:
    head = bytes([nft.IPV4, 0, 0, 0])
    return head + text(1, table) + text(2, chain) + attribute(3, bytes(8)) + text(7, content)


def end(program: str = "nft") -> Announcement:
    return Announcement(GENERATION, bytes(4) + u32(1, 7) + u32(2, 123) + text(3, program))


def lost(*messages: Announcement) -> list[str]:
    return [each.text for each in Transactions().add(messages)]


def test_the_program_and_the_tables_are_named() -> None:
    deleted = [Announcement(DELETED_RULE, rule("a", str(number))) for number in range(2)]
    table = Announcement(DELETED_TABLE, bytes([nft.IPV6, 0, 0, 0]) + text(1, "pycni"))
    assert lost(*deleted, table, end()) == [
        "nft (process 123) deleted 2 rules and 1 table of ip pycni and ip6 pycni"
    ]


def test_what_is_written_again_in_the_same_transaction_is_not_lost() -> None:
    deleted = [Announcement(DELETED_RULE, rule(chain, "")) for chain in ("a", "a", "b")]
    written = [Announcement(NEW_RULE, rule(chain, "")) for chain in ("a", "a", "b")]
    assert lost(*deleted, *written, end()) == []
    assert lost(*deleted, *written[:2], end()) == ["nft (process 123) deleted 1 rule of ip pycni"]
    # In another transaction it is.
    assert len(lost(*deleted, end(), *written, end())) == 1
    # Rules of another program are no replacement.
    foreign = Announcement(NEW_RULE, rule("b", "", "nat"))
    assert len(lost(*deleted, *written[:2], foreign, end())) == 1


def test_other_programs_rules_do_not_matter() -> None:
    foreign = Announcement(DELETED_RULE, rule("KUBE-SERVICES", "-j KUBE-SEP-X", "nat"))
    assert lost(foreign, end()) == []
    jump = Announcement(DELETED_RULE, rule("PREROUTING", "-j CNI-HOSTPORT-DNAT", "nat"))
    assert len(lost(foreign, jump, end("iptables"))) == 1
    # What a reload of firewalld drops is not all in tables.
    assert lost(foreign, end("firewalld")) == ["firewalld (process 123) loaded its rules again"]


def test_a_transaction_may_come_in_parts() -> None:
    transactions = Transactions()
    assert list(transactions.add([Announcement(DELETED_RULE, rule("a", ""))])) == []
    assert len(list(transactions.add([end()]))) == 1
    assert list(transactions.add([end()])) == []
    list(transactions.add([Announcement(DELETED_RULE, rule("a", ""))]))
    transactions.forget()
    assert list(transactions.add([end()])) == []


@pytest.fixture
def register(tmp_path: Path) -> Register:
    cache = Cache(tmp_path)
    for number, owner in enumerate((OWNER, OTHER)):
        result = {
            "cniVersion": "1.0.0",
            "interfaces": [
                {"name": "web0"},
                {"name": f"veth0000000{number}"},
                {"name": "eth0", "sandbox": "/x"},
            ],
            "ips": [{"address": f"10.9.0.{number + 2}/24", "gateway": "10.9.0.1", "interface": 2}],
        }
        config = b'{"cniVersion": "1.0.0", "name": "web", "plugins": [{"type": "x", "bridge": "web0"}]}'
        cache.write(Entry(*owner, config=config, netns="/x", result=result))
    register = Register(cache, "")
    register.refresh()
    return register


def test_rules_name_their_owner_in_each_way(register: Register) -> None:
    unknown = Owner("web", "cnitool-5555555555", "eth0")
    one, other = frozenset({OWNER}), frozenset({OTHER})
    for owner, expected in ((OWNER, one), (OTHER, other), (unknown, frozenset[Owner]())):
        named = [each.decode() for each in texts(owner)[1:]] + [comment(owner)]
        for each in named:
            assert register.needing_rules([rule("a", each)]) == expected
    both = [rule("a", comment(OWNER)), rule("a", comment(OTHER))]
    assert register.needing_rules(both) == one | other
    # By address, as nf_tables writes it, by container and by link.
    address = rule("a", "") + attribute(4, attribute(1, bytes([10, 9, 0, 3])))
    assert register.needing_rules([address]) == other
    assert register.needing_rules([rule("a", OTHER.container_id)]) == other
    assert register.needing_rules([rule("a", "veth00000000")]) == one
    # Shared ones name nobody.
    assert register.needing_rules([rule("CNI-HOSTPORT-DNAT", "x"), *both]) is None


def test_links_and_addresses_have_owners(register: Register) -> None:
    assert register.needing_link("web0") is None
    assert register.needing_link("veth00000001") == frozenset({OTHER})
    assert register.needing_link("eth0") == frozenset()
    assert register.needing_address(bytes([10, 9, 0, 2])) == {OWNER}
    assert register.needing_address(bytes([10, 9, 0, 1])) == {OWNER, OTHER}


def test_the_register_follows_the_cache(register: Register, tmp_path: Path) -> None:
    for path in (tmp_path / "results").iterdir():
        if OTHER.container_id in path.name:
            path.unlink()
    register.refresh()
    assert register.needing_link("veth00000001") == frozenset()
    assert [each.owner for each in register.all()] == [OWNER]
