"""Find deleted rules of containers in the announcements of the kernel.

A transaction of nf_tables is a row of messages that ends with the program that has committed it. Only
deletions of what this suite or the Go plugins write count: their tables, chains and comments contain "cni".
A transaction that deletes and writes the same again, as a repair does, has deleted nothing.

Legacy iptables announces nothing. Its programs take a lock in a file and close that when they are done, so
the file is watched, and the tables are read again. A program that takes no lock is noticed by the size of a
table only, at intervals.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from cni.firewall import nft
from cni.firewall.iptables import legacy, rules
from cni.firewall.owners import tag
from cni.kernel.attributes import attributes, shown_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cni.firewall.intents import Owner
    from cni.kernel.announcements import Announcement

# nf_tables messages by the number of the new object; the number of the deleted one is two more.
_OBJECTS = {0: "table", 3: "chain", 6: "rule", 9: "set", 12: "element", 18: "object", 22: "flow table"}
_NEW = {nft.kind(number): name for number, name in _OBJECTS.items()}
_DELETED = {nft.kind(number + 2): name for number, name in _OBJECTS.items()}
_GENERATION = nft.kind(15)
_NAMES = (1, 2, 3)
_TABLE_NAME, _CHAIN_NAME = 1, 3
_PROCESS_ID, _PROCESS_NAME = 2, 3
_FAMILY_BYTES = 4
# Comments and chains of one attachment, as `texts` has them. Chains of gateways and names are a network's.
_OF_OWNER = re.compile(rb"[0-9a-f]{16}-[0-9a-f]{16}(?=, net: )|CNI-(?:(?!GW|NM)[A-Z]{2}-)?[0-9a-f]{21,24}")
# A reload of firewalld drops the zones' sources that plugins have added, which no rule of theirs shows. It
# commits its rules itself or, with the backend iptables, by programs that delete this chain.
_FIREWALLD, _ZONES_CHAIN = "firewalld", b"INPUT_ZONES"
# More need not be distinguished: they are a whole ruleset.
_MOST_DELETIONS = 10_000


class Deletion(NamedTuple):
    """Deleted objects of this suite, by one transaction. `text` names program and tables.

    `payloads` are the objects as the kernel has them. Empty stands for everything.
    """

    text: str
    payloads: tuple[bytes, ...] = ()


def texts(owner: Owner) -> tuple[bytes, ...]:
    """Return the texts by which `named_owners` recognises an attachment's rules."""
    chains = (rules.masquerade_chain(owner), rules.forward_chain(owner), rules.old_snat_chain(owner))
    return tuple(each.encode() for each in (tag(owner), *chains))


def named_owners(payload: bytes) -> list[bytes]:
    """Return the texts in a deleted object that name attachments: [] for an object that many share."""
    return _OF_OWNER.findall(payload)


class Transactions:
    """Collects the messages of transactions until each is complete."""

    def __init__(self) -> None:
        self._deleted: list[tuple[tuple[object, ...], bytes]] = []
        self._written: Counter[tuple[object, ...]] = Counter()
        self._has_deleted_foreign = self._has_deleted_zones = False

    def forget(self) -> None:
        """Drop what has come of a transaction, because the kernel has dropped other parts."""
        self.__init__()  # type: ignore[misc]

    def add(self, messages: Iterable[Announcement]) -> Iterator[Deletion]:
        """Yield the deletions of each transaction that is complete with these messages."""
        for kind, payload in messages:
            if kind in _DELETED:
                if _is_of_suite(payload):
                    self._deleted.append((_place(_DELETED[kind], payload), payload))
                else:
                    self._has_deleted_foreign = True
                    self._has_deleted_zones |= _ZONES_CHAIN in payload
            elif kind in _NEW:
                if _is_of_suite(payload):
                    self._written[_place(_NEW[kind], payload)] += 1
            elif kind == _GENERATION:
                yield from self._end(attributes(payload[_FAMILY_BYTES:]))
                self.forget()

    def _end(self, shown: dict[int, bytes]) -> Iterator[Deletion]:
        program = shown_text(shown.get(_PROCESS_NAME, b"")) or "a program"
        pid = int.from_bytes(shown.get(_PROCESS_ID, b""), "big")
        actor = f"{program} (process {pid})" if pid else program
        if program == _FIREWALLD and (self._deleted or self._has_deleted_foreign):
            yield Deletion(f"{actor} loaded its rules again")
            return
        if self._has_deleted_zones:
            yield Deletion(f"{actor} deleted rules of firewalld")
            return
        lost = []
        for place, payload in self._deleted:
            if self._written[place]:
                self._written[place] -= 1
            else:
                lost.append((place, payload))
        if lost:
            tables = dict.fromkeys(
                f"{nft.FAMILY_NAMES.get(payload[0], '?')} {place[1]}" for place, payload in lost
            )
            nouns = Counter(str(place[0]) for place, _ in lost)
            payloads = tuple(payload for _, payload in lost) if len(lost) <= _MOST_DELETIONS else ()
            yield Deletion(f"{actor} deleted {_counted(nouns)} of {_joined(list(tables))}", payloads)


def _is_of_suite(payload: bytes) -> bool:
    return b"cni" in payload.lower()


def _place(noun: str, payload: bytes) -> tuple[object, ...]:
    """Return what tells whether an object stands in for a deleted one: its kind, table and chain or set."""
    names = attributes(payload[_FAMILY_BYTES:], _NAMES)
    # The third attribute of a chain is its name, that of a rule its number.
    second = names.get(_CHAIN_NAME if noun == "chain" else 2, b"")
    return noun, shown_text(names.get(_TABLE_NAME, b"")), payload[0], b"" if noun == "table" else second


def _counted(nouns: Counter[str]) -> str:
    return _joined([f"{count} {noun}{'s' if count > 1 else ''}" for noun, count in sorted(nouns.items())])


def _joined(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _shown_table(version: int, line: bytes) -> str:
    table, _, _ = line.partition(b"\0")
    return f"{'iptables' if version == 4 else 'ip6tables'} -t {table.decode()}"


class LegacyTables:
    """The rules of containers in the tables of legacy iptables, as they were when read last."""

    def __init__(self) -> None:
        self._sizes = self._measure()
        self._rules = self._read()

    @property
    def are_loaded(self) -> bool:
        """Return whether this namespace has tables of legacy iptables."""
        return bool(self._sizes)

    def has_changed_size(self) -> bool:
        """Return whether a table has more or fewer entries than when it was read last."""
        return self._measure() != self._sizes

    def read(self) -> Iterator[Deletion]:
        """Read the tables again. Yield the rules that are gone. Raise CniError 101 or 11."""
        before, self._sizes, self._rules = self._rules, self._measure(), self._read()
        lost = before - self._rules
        if lost:
            tables = dict.fromkeys(_shown_table(version, line) for version, line in lost)
            nouns = Counter({"rule": lost.total()})
            lines = tuple(line for _, line in lost)
            yield Deletion(f"a program deleted {_counted(nouns)} of legacy {_joined(list(tables))}", lines)

    @staticmethod
    def _measure() -> dict[tuple[int, str], tuple[int, int]]:
        return {
            (version, table): legacy.measure(version, table)
            for version in (4, 6)
            for table in legacy.list_loaded(version)
        }

    @staticmethod
    def _read() -> Counter[tuple[int, bytes]]:
        return Counter(
            (version, line)
            for version in (4, 6)
            for table in legacy.list_loaded(version)
            for line in legacy.list_rules(version, table)
            if _is_of_suite(line)
        )
