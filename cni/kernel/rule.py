"""Policy rules: which table the kernel looks a destination up in, by source, link or mark."""

from __future__ import annotations

import errno
import socket
import struct
from ipaddress import ip_network
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import KernelError
from cni.kernel import rtnetlink
from cni.kernel.attributes import attribute, attributes, number, shown_number, shown_text, text
from cni.kernel.rtnetlink import Message, Netlink

if TYPE_CHECKING:
    from cni.result import IpNetwork

# struct fib_rule_hdr and the attributes, <linux/fib_rules.h>
_HEAD = struct.Struct(
    "=8BI"
)  # family, lengths of dst and src, type of service, table, 2 unused, action, flags
_TO_TABLE = 1
_DST, _SRC, _IIF, _PRIORITY, _MARK, _TABLE, _MASK, _OIF = 1, 2, 3, 6, 10, 15, 16, 17
_FAMILIES: dict[int, int] = {4: socket.AF_INET, 6: socket.AF_INET6}
_WHOLE_MARK = 0xFFFFFFFF


class Rule(NamedTuple):
    """A rule that leads to a table; it matches if all that is given matches.

    `version` is 4 or 6. For `priority` 0 the kernel picks one before all other rules but the first. `iif`
    and `oif` are names of links. `mark` is compared with the bits in `mask`.
    """

    version: int
    table: int
    src: IpNetwork | None = None
    dst: IpNetwork | None = None
    priority: int = 0
    iif: str = ""
    oif: str = ""
    mark: int = 0
    mask: int = 0

    def __str__(self) -> str:
        source = self.src or "all"
        words = {"to": self.dst, "iif": self.iif, "oif": self.oif, "priority": self.priority}
        shown = "".join(f" {word} {value}" for word, value in words.items() if value)
        mark = f" fwmark {self.mark:#x}/{self.mask or _WHOLE_MARK:#x}" if self.mark else ""
        return f"from {source}{shown}{mark} lookup {self.table}"


def ensure(nl: Netlink, rule: Rule) -> bool:
    """Add a rule; return False if the very same was there already. Raise KernelError.

    For priority 0 the kernel adds a rule a second time, under another priority. So the rules are listed
    first then.
    """
    if not rule.priority and any(
        each._replace(priority=0) == rule._replace(mask=each.mask) for each in list_rules(nl, rule.version)
    ):
        return False
    try:
        nl.batch([add(rule)])
    except KernelError as error:
        if error.errno == errno.EEXIST:
            return False
        raise
    return True


def add(rule: Rule) -> Message:
    """Add a rule; refused with EEXIST if it is there."""
    flags = rtnetlink.NLM_F_CREATE | rtnetlink.NLM_F_EXCL
    return Message(f"failed to add rule '{rule}'", rtnetlink.RTM_NEWRULE, flags, body=_body(rule))


def remove(nl: Netlink, rule: Rule) -> bool:
    """Remove the first rule that has all that is given; return False if there is none."""
    try:
        message = Message(f"could not remove rule '{rule}'", rtnetlink.RTM_DELRULE, body=_body(rule))
        nl.batch([message])
    except KernelError as error:
        if error.errno in {errno.ENOENT, errno.EOPNOTSUPP, errno.EAFNOSUPPORT}:
            return False
        raise
    return True


def list_rules(nl: Netlink, version: int = 0) -> list[Rule]:
    """List the rules that lead to a table, of both versions for 0, in the kernel's order."""
    found: list[Rule] = []
    for family in [_FAMILIES[version]] if version else _FAMILIES.values():
        body = _HEAD.pack(family, *[0] * 8)
        try:
            shown = nl.dump(Message("list rules", rtnetlink.RTM_GETRULE, body=body))
        except KernelError as error:
            if error.errno not in {errno.EOPNOTSUPP, errno.EAFNOSUPPORT}:
                raise
            continue
        found += [each for each in map(_parse, shown) if each]
    return found


def _body(rule: Rule) -> bytes:
    lengths = [network.prefixlen if network else 0 for network in (rule.dst, rule.src)]
    short = rule.table if rule.table < 256 else 0
    parts = [_HEAD.pack(_FAMILIES[rule.version], *lengths, 0, short, 0, 0, _TO_TABLE, 0)]
    parts.append(number(_TABLE, rule.table))
    parts += [
        attribute(kind, network.network_address.packed)
        for kind, network in ((_DST, rule.dst), (_SRC, rule.src))
        if network and network.prefixlen
    ]
    parts += [text(kind, name) for kind, name in ((_IIF, rule.iif), (_OIF, rule.oif)) if name]
    if rule.priority:
        parts.append(number(_PRIORITY, rule.priority))
    if rule.mark:
        parts += [number(_MARK, rule.mark), number(_MASK, rule.mask or _WHOLE_MARK)]
    return b"".join(parts)


def _parse(shown: bytes) -> Rule | None:
    """Return a rule that leads to a table, None for another one."""
    family, to_length, from_length, _, short, _, _, action, _ = _HEAD.unpack_from(shown)
    if action != _TO_TABLE:
        return None
    parts = attributes(shown[_HEAD.size :])

    def number_of(kind: int) -> int:
        return shown_number(parts.get(kind, b""))

    def network_of(kind: int, length: int) -> IpNetwork | None:
        return ip_network((parts[kind], length)) if kind in parts else None

    mark = number_of(_MARK)
    return Rule(
        4 if family == socket.AF_INET else 6,
        number_of(_TABLE) or short,
        network_of(_SRC, from_length),
        network_of(_DST, to_length),
        number_of(_PRIORITY),
        shown_text(parts.get(_IIF, b"")),
        shown_text(parts.get(_OIF, b"")),
        mark,
        number_of(_MASK) if mark else 0,
    )
