"""Read a table of legacy iptables from the kernel, without a child process. Nothing here writes it.

Two calls of getsockopt(2) return a table as one block. Structures are those of
<linux/netfilter_ipv4/ip_tables.h> and its IPv6 twin. A caller reads only tables that this namespace has
loaded, as reading loads the table.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LOADED = {4: "/proc/net/ip_tables_names", 6: "/proc/net/ip6_tables_names"}
_GET_INFO, _GET_ENTRIES = 64, 65
# Name, valid hooks, the first entry of each hook, underflows, number of entries, size in bytes.
_INFO = struct.Struct("=32sI5I5III")
# Name and size, then the entries, which are aligned to 8 bytes.
_HEAD = struct.Struct("=32sI4x")
_TRIES = 20

# The built-in chains by the number of their hook, which is a bit among the valid hooks of _INFO.
_HOOKS = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
# Offsets within a target: its name; the value of a verdict, or the name of the chain that it heads.
_NAME_AT = 2
_VERDICT_AT = 30
_VERDICT = struct.Struct("=i")
_NAME_LENGTH = 30
# In place of an offset: for targets that are no chain, and for heads of chains. Verdicts are small.
_NOWHERE, _HEADING = -1000, -1001


class _Layout(NamedTuple):
    """The layout of an entry of a family: the place of its two offsets, and its length before its matches.

    An entry begins with the selector: addresses, links and protocol.
    """

    family: int
    level: int
    offsets: struct.Struct
    length: int
    selector: int


_LAYOUTS = {
    4: _Layout(socket.AF_INET, socket.IPPROTO_IP, struct.Struct("=88xHH"), 112, 84),
    6: _Layout(socket.AF_INET6, socket.IPPROTO_IPV6, struct.Struct("=140xHH"), 168, 136),
}


class Table(NamedTuple):
    """A table as the kernel reports it: `entries` are (start, end, offset jumped to) in the block.

    `chains` has the first entry of each chain and the one after its last, `heads` the chain at an offset.
    """

    block: bytes
    entries: Sequence[tuple[int, int, int]]
    chains: Mapping[str, tuple[int, int]]
    heads: Mapping[int, str]

    def count_rules(self, chain: str) -> int:
        """Return the number of rules of a chain, 0 if it does not exist."""
        first, end = self.chains.get(chain, (0, 0))
        return end - first

    def count_jumps(self, chain: str, to: str) -> int:
        """Return how many rules of a chain jump to another."""
        first, end = self.chains.get(chain, (0, 0))
        return sum(self.heads.get(offset) == to for _, _, offset in self.entries[first:end])


def is_loaded(version: int, table: str) -> bool:
    """Return whether legacy iptables has a table in this namespace."""
    try:
        with open(_LOADED[version], encoding="ascii") as names:  # noqa: PTH123 - on the hot path
            return f"{table}\n" in names
    except FileNotFoundError:
        # The kernel does not have legacy iptables, or has not loaded it.
        return False


def list_loaded(version: int) -> list[str]:
    """Return the tables of legacy iptables that this namespace has."""
    try:
        with open(_LOADED[version], encoding="ascii") as names:  # noqa: PTH123 - as above
            return names.read().split()
    except FileNotFoundError:
        return []


def measure(version: int, table: str) -> tuple[int, int]:
    """Return the number of entries of a loaded table and their size in bytes, without reading them."""
    layout = _LAYOUTS[version]
    name = table.encode().ljust(32, b"\0")
    with socket.socket(layout.family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW) as opened:
        try:
            info = _INFO.unpack(_ask(opened, (layout.level, _GET_INFO), name, _INFO.size))
        except OSError as error:
            raise _refused(version, table, error) from error
    return info[-2], info[-1]


def list_rules(version: int, table: str) -> list[bytes]:
    """Return each rule of a loaded table as bytes that do not change while the rule stays.

    They have the rule's chain, the chain that it jumps to, and matches and target without counters.
    """
    layout = _LAYOUTS[version]
    parsed = read(version, table)
    rules = []
    for chain, (first, end) in parsed.chains.items():
        for start, behind, offset in parsed.entries[first:end]:
            to_target = start + layout.offsets.unpack_from(parsed.block, start)[0]
            # A verdict is a number or, for a jump, an offset into this table.
            verdict = to_target + _NAME_AT + _VERDICT_AT
            rest = parsed.block[start + layout.length : behind]
            if offset in parsed.heads:
                rest = parsed.block[start + layout.length : verdict]
            head = parsed.block[start : start + layout.selector]
            words = (table, chain, parsed.heads.get(offset, ""))
            rules.append(b"\0".join((*map(str.encode, words), head, rest)))
    return rules


def may_have_chain(version: int, table: str, chain: str) -> bool:
    """Return whether a loaded table has a chain. The answer is also True if a comment names it."""
    return f"{chain}\0".encode() in _read_block(version, table)[0]


def read(version: int, table: str) -> Table:
    """Read a loaded table. Raise CniError 101 if the kernel refuses."""
    return _parse(_LAYOUTS[version], *_read_block(version, table))


def _read_block(version: int, table: str) -> tuple[bytes, dict[int, str]]:
    """Return the entries of a table, and the built-in chains by the offsets of their first entries."""
    layout = _LAYOUTS[version]
    name = table.encode().ljust(32, b"\0")
    with socket.socket(layout.family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW) as opened:
        for _ in range(_TRIES):
            try:
                info = _INFO.unpack(_ask(opened, (layout.level, _GET_INFO), name, _INFO.size))
                size = info[-1]
                asked = _ask(
                    opened, (layout.level, _GET_ENTRIES), name + struct.pack("=I", size), _HEAD.size + size
                )
            except OSError as error:
                # Another program has changed the size of the table.
                if error.errno == errno.EAGAIN:
                    continue
                raise _refused(version, table, error) from error
            heads = {info[2 + hook]: name for hook, name in enumerate(_HOOKS) if info[1] & 1 << hook}
            return asked[_HEAD.size :], heads
    raise CniError(Code.TRY_AGAIN, f"could not read table {table} of legacy iptables: it kept changing")


def _ask(opened: socket.socket, option: tuple[int, int], request: bytes, size: int) -> bytes:
    """Call getsockopt with a block that begins with the request, which Python's own does not accept."""
    import ctypes  # Only a host with tables of legacy iptables needs it.

    block = ctypes.create_string_buffer(request, size)
    length = ctypes.c_uint(size)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.getsockopt(opened.fileno(), *option, block, ctypes.byref(length)):
        raise OSError(ctypes.get_errno(), "getsockopt")
    return block.raw


def _refused(version: int, table: str, error: OSError) -> CniError:
    name = "iptables" if version == 4 else "ip6tables"
    return CniError(
        Code.FIREWALL,
        f"could not read table {table} of legacy {name}: {errno.errorcode.get(error.errno or 0, error)}",
    )


def _parse(layout: _Layout, block: bytes, heads: dict[int, str]) -> Table:
    entries: list[tuple[int, int, int]] = []
    at = 0
    while at + layout.length < len(block):
        to_target, to_next = layout.offsets.unpack_from(block, at)
        target = at + to_target + _NAME_AT
        offset = _NOWHERE
        if not block[target]:
            offset = _VERDICT.unpack_from(block, target + _VERDICT_AT)[0]
        elif block.startswith(b"ERROR\0", target):
            # It heads a user's chain, with the chain's name in place of a verdict, or ends the table.
            offset = _HEADING
            name = block[target + _VERDICT_AT : target + _VERDICT_AT + _NAME_LENGTH]
            heads[at + to_next] = name.split(b"\0", 1)[0].decode()
        entries.append((at, at + to_next, offset))
        at += to_next
    return Table(block, entries, _chains(entries, heads), heads)


def _chains(entries: Sequence[tuple[int, int, int]], heads: Mapping[int, str]) -> dict[str, tuple[int, int]]:
    firsts = [index for index, (start, _, _) in enumerate(entries) if start in heads]
    chains = {}
    for first, behind in zip(firsts, [*firsts[1:], len(entries)], strict=True):
        # The head of the next chain and the table's end are no rules, nor are the policy and a chain's
        # return.
        end = behind - 1 if entries[behind - 1][2] == _HEADING else behind
        chains[heads[entries[first][0]]] = first, end - 1
    return chains
