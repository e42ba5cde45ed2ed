"""Table nat of legacy iptables, read from the kernel without a child process; never written here.

Two calls of getsockopt(2) give a table as one block; structures are those of
<linux/netfilter_ipv4/ip_tables.h> and its IPv6 twin. A table that this namespace has not loaded is not
asked for, as asking would load it.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_TABLE = "nat"
_LOADED = {4: "/proc/net/ip_tables_names", 6: "/proc/net/ip6_tables_names"}
_GET_INFO, _GET_ENTRIES = 64, 65
# Name, valid hooks, the first entry of each hook, underflows, number of entries, size in bytes.
_INFO = struct.Struct("=32sI5I5III")
# Name and size, then the entries, which are aligned to 8 bytes.
_HEAD = struct.Struct("=32sI4x")
_TRIES = 20

# Where hooks are in _INFO that table nat has, by the chain's name.
_HOOKS = {"PREROUTING": 0, "INPUT": 1, "OUTPUT": 3, "POSTROUTING": 4}
# Within a target: its name, then, of a verdict and of what heads a chain, the value.
_NAME_AT = 2
_VERDICT_AT = 30
_VERDICT = struct.Struct("=i")
_NAME_LENGTH = 30
# In place of an offset: for targets that are no chain, and for what heads a chain. Verdicts are small.
_NOWHERE, _HEADING = -1000, -1001


class _Layout(NamedTuple):
    """How an entry of a family looks: where its two offsets are, and how long it is before its matches."""

    family: int
    level: int
    offsets: struct.Struct
    length: int


_LAYOUTS = {
    4: _Layout(socket.AF_INET, socket.IPPROTO_IP, struct.Struct("=88xHH"), 112),
    6: _Layout(socket.AF_INET6, socket.IPPROTO_IPV6, struct.Struct("=140xHH"), 168),
}


class Rule(NamedTuple):
    """A rule of a chain: the chain that it jumps to, "" for any other target, and its bytes."""

    chain: str
    leads_to: str
    raw: bytes


class Table(NamedTuple):
    """A table as the kernel gives it: `entries` are (start, end, offset jumped to) in the block.

    `chains` holds first and behind-last entry of each chain, `heads` the chain that begins at an offset.
    """

    block: bytes
    entries: Sequence[tuple[int, int, int]]
    chains: Mapping[str, tuple[int, int]]
    heads: Mapping[int, str]

    def count_rules(self, chain: str) -> int:
        """Tell how many rules a chain has; 0 for one that is not there."""
        first, end = self.chains.get(chain, (0, 0))
        return end - first

    def count_jumps(self, chain: str, to: str) -> int:
        """Tell how many rules of a chain jump to another."""
        first, end = self.chains.get(chain, (0, 0))
        return sum(self.heads.get(offset) == to for _, _, offset in self.entries[first:end])

    def rules(self) -> Iterator[Rule]:
        """Give all rules of all chains."""
        for chain, (first, end) in self.chains.items():
            for start, stop, offset in self.entries[first:end]:
                yield Rule(chain, self.heads.get(offset, ""), self.block[start:stop])


def is_loaded(version: int) -> bool:
    """Tell whether legacy iptables has a table nat in this namespace."""
    try:
        with open(_LOADED[version], encoding="ascii") as names:  # noqa: PTH123 - on the hot path
            return f"{_TABLE}\n" in names
    except FileNotFoundError:
        # This kernel has no legacy iptables, or has not loaded it.
        return False


def may_have_chain(version: int, chain: str) -> bool:
    """Tell whether a chain is in the table, which must be loaded; True, too, where a comment names it."""
    return f"{chain}\0".encode() in _read_block(version)[0]


def read(version: int) -> Table:
    """Read the table, which must be loaded. Raises CniError 101 when the kernel refuses."""
    return _parse(_LAYOUTS[version], *_read_block(version))


def _read_block(version: int) -> tuple[bytes, tuple[int, ...]]:
    layout = _LAYOUTS[version]
    with socket.socket(layout.family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW) as door:
        for _ in range(_TRIES):
            try:
                told = _INFO.unpack(_ask(door, layout.level, _GET_INFO, _INFO.size, b""))
                size = told[-1]
                block = _ask(door, layout.level, _GET_ENTRIES, _HEAD.size + size, struct.pack("=I", size))
            except OSError as error:
                # The table has another size by now.
                if error.errno == errno.EAGAIN:
                    continue
                raise _refused(version, error) from error
            return block[_HEAD.size :], told[2:7]
    raise CniError(Code.TRY_AGAIN, f"could not read table {_TABLE} of legacy iptables: it kept changing")


def _ask(door: socket.socket, level: int, option: int, size: int, told: bytes) -> bytes:
    """Call getsockopt with a block that says what is asked for, which Python's own does not take."""
    import ctypes

    block = ctypes.create_string_buffer(_TABLE.encode().ljust(32, b"\0") + told, size)
    length = ctypes.c_uint(size)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.getsockopt(door.fileno(), level, option, block, ctypes.byref(length)):
        raise OSError(ctypes.get_errno(), "getsockopt")
    return block.raw


def _refused(version: int, error: OSError) -> CniError:
    name = "iptables" if version == 4 else "ip6tables"
    return CniError(
        Code.FIREWALL,
        f"could not read table {_TABLE} of legacy {name}: {errno.errorcode.get(error.errno or 0, error)}",
    )


def _parse(layout: _Layout, block: bytes, hooks: Sequence[int]) -> Table:
    entries: list[tuple[int, int, int]] = []
    heads = {hooks[index]: name for name, index in _HOOKS.items()}
    at = 0
    while at + layout.length < len(block):
        to_target, to_next = layout.offsets.unpack_from(block, at)
        target = at + to_target + _NAME_AT
        offset = _NOWHERE
        if not block[target]:
            offset = _VERDICT.unpack_from(block, target + _VERDICT_AT)[0]
        elif block.startswith(b"ERROR\0", target):
            # It heads a chain of a user, whose name it has in place of a verdict, or ends the table.
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
        # What heads the next chain, or ends the table, is no rule; nor is the policy, or a chain's return.
        end = behind - 1 if entries[behind - 1][2] == _HEADING else behind
        chains[heads[entries[first][0]]] = first, end - 1
    return chains
