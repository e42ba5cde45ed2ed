"""Tables, chains and rules of nf_tables: find, list and delete them, and run nft scripts.

The hot path uses netlink. Scripts make what is made once. Nothing here knows the owners of rules. Constants
are those of <linux/netfilter/nf_tables.h>.
"""

from __future__ import annotations

import errno
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code, KernelError
from cni.kernel import child
from cni.kernel.attributes import attribute, attributes, shown_text, text
from cni.kernel.nfnetlink import SUBSYS_NFTABLES, Message, kept

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

INET = 1
IPV4 = 2
BRIDGE = 7
IPV6 = 10
# By IP version.
FAMILIES = {4: IPV4, 6: IPV6}
ADDRESS_BYTES = {IPV4: 4, IPV6: 16}
FAMILY_NAMES = {INET: "inet", IPV4: "ip", BRIDGE: "bridge", IPV6: "ip6"}

# Added to the numbers of nf_tables messages for their netlink types.
MESSAGES = SUBSYS_NFTABLES << 8
_GETTABLE = MESSAGES | 1
_DELTABLE = MESSAGES | 2
_GETCHAIN = MESSAGES | 4
_DELCHAIN = MESSAGES | 5
_GETRULE = MESSAGES | 7
_DELRULE = MESSAGES | 8
_GETGEN = MESSAGES | 16
_NAME = 1
_CHAIN_HANDLE = 2
_CHAIN_NAME = 3
_CHAIN_HOOK = 4
_CHAIN_USE = 6
_OF_CHAIN = {_CHAIN_HANDLE, _CHAIN_HOOK, _CHAIN_USE}
_RULE_CHAIN = 2
_RULE_HANDLE = 3
_RULE_USERDATA = 7
_GEN_ID = 1
_UDATA_COMMENT = 0

_NOT_EXISTING = "No such file or directory"
_EXISTING = "File exists"


# The family, the table and the name of a chain.
Place = tuple[int, str, str]


class Chain(NamedTuple):
    """A chain: whether it has a hook, and how many rules and jumps use it (its own rules count).

    `handle` is its number in the table, which numbers chains and rules together, in the order of their
    creation.
    """

    has_hook: bool
    use: int
    handle: int


class Rule(NamedTuple):
    """A rule: its identity and its comment; `raw` is the whole message of the kernel."""

    family: int
    table: str
    chain: str
    handle: bytes
    comment: str
    raw: bytes


def kind(message: int) -> int:
    """Return the netlink type of an nf_tables message."""
    return MESSAGES | message


_GENERATION_REQUEST = Message("read the ruleset's generation", _GETGEN, 0)


def generation() -> int:
    """Return the generation of the ruleset. Each commit of any program makes a new one."""
    return _read_generation(kept().find(_GENERATION_REQUEST))


def _read_generation(reply: bytes | None) -> int:
    return int.from_bytes(attributes(reply or b"").get(_GEN_ID, b""), "big")


def has_table(family: int, table: str) -> bool:
    """Return whether a table exists."""
    doing = f"find table {FAMILY_NAMES[family]} {table}"
    return kept().find(Message(doing, _GETTABLE, family, text(_NAME, table))) is not None


def which_chains(chains: Sequence[Place]) -> list[Place]:
    """Return those of some chains that exist, with one question for all."""
    return [place for place, found in zip(chains, find_chains(chains), strict=True) if found]


def find_chains(chains: Sequence[Place]) -> list[Chain | None]:
    """Find chains, with one question for all."""
    found = kept().find_all([_chain_request(*each) for each in chains])
    return [None if each is None else _read_chain(each) for each in found]


def find_chains_now(chains: Sequence[Place]) -> tuple[int, list[Chain | None]]:
    """Return the generation of the ruleset, and chains as `find_chains` does, with one question for all."""
    number, *found = kept().find_all([_GENERATION_REQUEST, *(_chain_request(*each) for each in chains)])
    return _read_generation(number), [None if each is None else _read_chain(each) for each in found]


@lru_cache(maxsize=64)
def _chain_request(family: int, table: str, chain: str) -> Message:
    payload = text(_NAME, table) + text(_CHAIN_NAME, chain)
    return Message(f"find chain {FAMILY_NAMES[family]} {table} {chain}", _GETCHAIN, family, payload)


def find_chain(family: int, table: str, chain: str) -> Chain | None:
    """Find a chain by name."""
    return find_chains([(family, table, chain)])[0]


def _read_chain(reply: bytes) -> Chain:
    parts = attributes(reply, _OF_CHAIN)
    use, handle = (int.from_bytes(parts.get(each, b""), "big") for each in (_CHAIN_USE, _CHAIN_HANDLE))
    return Chain(_CHAIN_HOOK in parts, use, handle)


def list_chains(family: int, table: str) -> list[str]:
    """Return the names of the chains of a table. This reads the chains of all tables of the family."""
    doing = f"list chains of {FAMILY_NAMES[family]} {table}"
    found = map(attributes, kept().dump(Message(doing, _GETCHAIN, family)))
    return [
        shown_text(chain.get(_CHAIN_NAME, b""))
        for chain in found
        if shown_text(chain.get(_NAME, b"")) == table
    ]


def list_rules(family: int, table: str, chain: str) -> list[Rule]:
    """Return the rules of one chain in order, [] if the chain does not exist."""
    payload = text(_NAME, table) + text(_RULE_CHAIN, chain)
    doing = f"list chain {FAMILY_NAMES[family]} {table} {chain}"
    found = kept().dump(Message(doing, _GETRULE, family, payload))
    # Kernels before 4.15 list more chains than the request names.
    return [rule for raw in found if (rule := _read_rule(family, table, raw)).chain == chain]


def list_rules_with(family: int, table: str, chain: str, contents: Collection[bytes]) -> list[Rule]:
    """Return the rules of a chain whose messages contain one of some bytes. Others cost 0.001 ms each."""
    payload = text(_NAME, table) + text(_RULE_CHAIN, chain)
    listed = kept().dump(Message(f"list chain {chain} of {table}", kind(_GETRULE), family, payload))
    wanted = [raw for raw in listed if any(each in raw for each in contents)]
    return [rule for raw in wanted if (rule := _read_rule(family, table, raw)).chain == chain]


def find_rules(family: int, table: str, chain: str, handles: Iterable[int]) -> list[Rule]:
    """Return the rules of a chain that have these handles, as far as they exist."""
    payload = text(_NAME, table) + text(_RULE_CHAIN, chain)
    doing = f"find rules of {FAMILY_NAMES[family]} {table} {chain}"
    asked = [
        Message(doing, _GETRULE, family, payload + attribute(_RULE_HANDLE, each.to_bytes(8, "big")))
        for each in handles
    ]
    return [_read_rule(family, table, raw) for raw in kept().find_all(asked) if raw is not None]


def _read_rule(family: int, table: str, raw: bytes) -> Rule:
    parts = attributes(raw)
    comment = shown_comment(parts.get(_RULE_USERDATA, b""))
    chain = shown_text(parts.get(_RULE_CHAIN, b""))
    return Rule(family, table, chain, parts.get(_RULE_HANDLE, b""), comment, raw)


def delete_table(family: int, table: str) -> Message:
    """Return the message that deletes a table and its content."""
    return Message(f"delete table {FAMILY_NAMES[family]} {table}", _DELTABLE, family, text(_NAME, table))


def delete_chain(family: int, table: str, chain: str) -> Message:
    """Return the message that deletes a chain, which must be empty and unused by then."""
    doing = f"delete chain {FAMILY_NAMES[family]} {table} {chain}"
    return Message(doing, _DELCHAIN, family, text(_NAME, table) + text(_CHAIN_NAME, chain))


def flush_chain(family: int, table: str, chain: str) -> Message:
    """Return the message that deletes all rules of a chain."""
    doing = f"flush chain {FAMILY_NAMES[family]} {table} {chain}"
    return Message(doing, _DELRULE, family, text(_NAME, table) + text(_RULE_CHAIN, chain))


def delete_rule(rule: Rule) -> Message:
    """Return the message that deletes one rule."""
    where = f"{FAMILY_NAMES[rule.family]} {rule.table} {rule.chain}"
    payload = text(_NAME, rule.table) + text(_RULE_CHAIN, rule.chain) + attribute(_RULE_HANDLE, rule.handle)
    return Message(f"delete a rule of chain {where}", _DELRULE, rule.family, payload)


def commit_deletions(messages: list[Message]) -> bool:
    """Delete in one transaction. Return False if another program has deleted a part of it meanwhile."""
    try:
        kept().commit(messages)
    except KernelError as error:
        if error.errno in {errno.ENOENT, errno.EBUSY}:
            return False
        raise
    return True


def comment_data(comment: str) -> bytes:
    """Encode a comment as nft stores it in user data."""
    value = comment.encode() + b"\0"
    return bytes([_UDATA_COMMENT, len(value)]) + value


def shown_comment(userdata: bytes) -> str:
    """Return the comment in user data, "" for none."""
    at = 0
    while at + 2 <= len(userdata):
        end = at + 2 + userdata[at + 1]
        if userdata[at] == _UDATA_COMMENT:
            return shown_text(userdata[at + 2 : end])
        at = end
    return ""


def run_text(script: str, doing: str) -> bool:
    """Apply nft commands in one transaction. Return False if an object of a `create` exists already.

    Raise CniError 101 with nft's message.
    """
    path = child.find("nft")
    if path is None:
        raise CniError(Code.FIREWALL, f"could not {doing}: nft is not installed", "install nftables")
    done = child.run([path, "-f", "-"], script.encode())
    if done.status == 0:
        return True
    if _EXISTING in done.stderr:
        return False
    raise CniError(Code.FIREWALL, f"could not {doing}: {_reason(done.stderr)}", f"nft: {done.stderr}")


def _reason(stderr: str) -> str:
    """Return the first error of nft in one line ("/dev/stdin:1:2-3: Error: syntax error, ...")."""
    first = next(
        (line for line in stderr.splitlines() if "rror:" in line), stderr.splitlines()[0] if stderr else ""
    )
    return first.partition("rror: ")[2] or first or "nft failed without a message"
