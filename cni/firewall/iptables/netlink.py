"""Rules as expressions of nf_tables, as iptables' nf_tables variant writes them. No child process.

A rule is written in 0.2 ms instead of 2. Only the matches and targets that our rules have are known;
others are left to the program. The kernel's compatibility expressions (<linux/netfilter/nf_tables_compat.h>)
are used for each extension, as every release of iptables reads and compares those.
"""

from __future__ import annotations

import re
import socket
import struct
import sys
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import KernelError
from cni.firewall import nft
from cni.firewall.iptables.rule import Rule
from cni.kernel.attributes import attribute, attributes, each_attribute, nest, shown_text, text, u32
from cni.kernel.nfnetlink import NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, Message, kept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cni.firewall.iptables.rule import Match

_NEWCHAIN, _NEWRULE = nft.MESSAGES | 3, nft.MESSAGES | 6
_TABLE_NAME, _CHAIN_NAME = 1, 3
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS, _RULE_COMPAT = 1, 2, 4, 5
_LIST_ELEM, _EXPR_NAME, _EXPR_DATA = 1, 1, 2
_REGISTER = 1
_NETWORK_HEADER = 1
# The places of addresses in the headers of IPv4 and IPv6, which do not overlap, and their sizes.
_ADDRESSES = {12: ("-s", 4), 16: ("-d", 4), 8: ("-s", 16), 24: ("-d", 16)}
_ADDRESS_PLACES = {words: place for place, words in _ADDRESSES.items()}
_EQUAL, _NOT_EQUAL = 0, 1
_ORDER = {"-s": 0, "-d": 1, "-p": 2}
_TRANSPORT_HEADER, _DESTINATION_PORT = 2, 2
_META_MARK, _META_L4PROTO = 3, 16
_PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
_PROTOCOL_NAMES = {number: name for name, number in _PROTOCOLS.items()}
_VERDICTS = {"DROP": 0, "ACCEPT": 1, "RETURN": -5 & 0xFFFFFFFF}
_VERDICT_NAMES = {number: name for name, number in _VERDICTS.items()}
_JUMP = -3 & 0xFFFFFFFF

# struct xt_tcp and xt_udp: source ports, destination ports, then flags; struct xt_multiport_v1,
# xt_mark_mtinfo1, xt_addrtype_info_v1, xt_mark_tginfo2; the range of <linux/netfilter/nf_nat.h> in its two
# forms. All padded to 8 bytes.
_TCP, _UDP = struct.Struct("=4HxxxxI"), struct.Struct("=4HBxxxxxxx")
_MULTIPORT = struct.Struct("=BB15H15sB")
_MULTIPORT_DESTINATION, _MOST_PORTS = 1, 15
_MARK_MATCH, _MARK_TARGET = struct.Struct("=IIB7x"), struct.Struct("=II")
# struct xt_conntrack_mtinfo3: addresses and masks, times, ports, flags, states, upper ports.
_CONNTRACK, _BY_STATE = struct.Struct("=128xII13H6x"), 1
_ESTABLISHED, _RELATED = 0x2, 0x4
_ADDRTYPE, _LOCAL, _NOT_SOURCE = struct.Struct("=HHI"), 1 << 2, 1
_DNAT_RANGE = struct.Struct("=I16s16s2s2s2x6x")
_MASQUERADE_RANGES = {nft.IPV4: struct.pack("=I20x", 1), nft.IPV6: bytes(40)}
_MAPS_ADDRESS_AND_PORT = 0x3
_COMMENT_BYTES = 256
_ANY_PORT = (0, 0xFFFF)


class _UnknownError(Exception):
    """The rule has a part that only the program knows; never seen outside."""


class _Extension(NamedTuple):
    """A match or a target of an extension: how its last word is packed, and read from what is packed."""

    revision: int
    pack: Callable[[str], bytes]
    unpack: Callable[[bytes], str]


def make_chain(
    doing: str, chain: str, rules: Sequence[Rule], generation: int | None = None, family: int = nft.IPV4
) -> bool:
    """Make a chain in the table of `rules`, and append these to it and to others, in one transaction.

    Return False, with nothing done, if the kernel refuses, if a rule has parts that are not known here, or if
    the ruleset is not that of `generation` any more: then the program may try.
    """
    created = text(_TABLE_NAME, rules[0].table) + text(_CHAIN_NAME, chain)
    try:
        messages = [
            Message(doing, _NEWCHAIN, family, created, NLM_F_CREATE | NLM_F_EXCL),
            *(_addition(doing, each, family) for each in rules),
        ]
        kept().commit(messages, generation)
    except (_UnknownError, KernelError, ValueError, struct.error):
        return False
    return True


def append(doing: str, version: int, rules: Sequence[Rule], generation: int) -> bool:
    """Append rules to chains that exist. Return False as `make_chain` does."""
    try:
        kept().commit([_addition(doing, each, nft.FAMILIES[version]) for each in rules], generation)
    except (_UnknownError, KernelError, ValueError, struct.error):
        return False
    return True


def content(rule: nft.Rule) -> bytes:
    """Return the expressions of a rule as the kernel reports them, without its counter."""
    return b"".join(raw for raw in _expressions(rule.raw) if not raw.startswith(_COUNTER))


def read_rule(rule: nft.Rule) -> Rule | None:
    """Read a rule that the kernel reports. Return None if it has parts that are not known here."""
    matches: list[Match] = []
    target: tuple[str, ...] = ()
    loaded: list[tuple[str, dict[int, bytes]]] = []
    try:
        for raw in _expressions(rule.raw):
            parts = attributes(raw)
            name, data = shown_text(parts[_EXPR_NAME]), attributes(parts.get(_EXPR_DATA, b""))
            if name in {"payload", "meta", "bitwise"}:
                loaded.append((name, data))
            elif name == "cmp":
                matches.append(_read_comparison(loaded, data, matches))
                loaded = []
            elif name == "match":
                matches.append(_read_extension(_MATCHES, data, ("-m",)))
            elif name in {"target", "immediate"}:
                is_extension = name == "target"
                target = _read_extension(_TARGETS[rule.family], data) if is_extension else _read_verdict(data)
            elif name != "counter":
                return None
    except (_UnknownError, KeyError, ValueError, struct.error):
        return None
    # iptables lists addresses first, whatever the order of expressions.
    matches.sort(key=lambda match: _ORDER.get(match[-2], len(_ORDER)))
    return None if loaded else Rule(rule.table, rule.chain, tuple(matches), target)


def _expressions(raw: bytes) -> Iterator[bytes]:
    for _, each in each_attribute(attributes(raw).get(_RULE_EXPRESSIONS, b"")):
        yield each


def _addition(doing: str, rule: Rule, family: int) -> Message:
    expressions = [each for match in rule.matches for each in _match_expressions(match)]
    expressions += [_expression("counter", attribute(1, bytes(8)), attribute(2, bytes(8)))]
    expressions += _target_expressions(rule.target, _TARGETS[family])
    payload = (
        text(_RULE_TABLE, rule.table)
        + text(_RULE_CHAIN, rule.chain)
        + nest(_RULE_EXPRESSIONS, *(nest(_LIST_ELEM, each) for each in expressions))
    )
    protocol = next((_PROTOCOLS[match[1]] for match in rule.matches if match[0] == "-p"), 0)
    if protocol:
        payload += nest(_RULE_COMPAT, u32(1, protocol), u32(2, 0))
    return Message(doing, _NEWRULE, family, payload, NLM_F_CREATE | NLM_F_APPEND)


def _match_expressions(match: Match) -> list[bytes]:
    is_not = match[0] == "!"
    option, *words = match[1:] if is_not else match
    if option in {"-s", "-d"} and len(words) == 1:
        return _address_expressions(option, words[0], is_not=is_not)
    if is_not:
        raise _UnknownError(match)
    if option == "-p" and words[0] in _PROTOCOLS:
        load = _expression("meta", u32(2, _META_L4PROTO), u32(1, _REGISTER))
        return [load, _comparison(_EQUAL, bytes([_PROTOCOLS[words[0]]]))]
    if option == "-m" and tuple(words[:-1]) in _MATCHES:
        return [_extension("match", _MATCHES, words)]
    raise _UnknownError(match)


def _address_expressions(option: str, value: str, *, is_not: bool) -> list[bytes]:
    network = ip_network(value)
    size = network.max_prefixlen // 8
    place = u32(3, _ADDRESS_PLACES[option, size]) + u32(4, size)
    found = [_expression("payload", u32(1, _REGISTER), u32(2, _NETWORK_HEADER), place)]
    if network.prefixlen != network.max_prefixlen:
        mask = nest(4, attribute(1, network.netmask.packed)) + nest(5, attribute(1, bytes(size)))
        found.append(_expression("bitwise", u32(1, _REGISTER), u32(2, _REGISTER), u32(3, size), mask))
    return [*found, _comparison(_NOT_EQUAL if is_not else _EQUAL, network.network_address.packed)]


def _target_expressions(target: tuple[str, ...], known: dict[tuple[str, ...], _Extension]) -> list[bytes]:
    if target[:-1] in known:
        return [_extension("target", known, target)]
    if target == ("MASQUERADE",):
        return [_extension("target", known, (*target, ""))]
    if len(target) != 1:
        raise _UnknownError(target)
    [name] = target
    verdict = u32(1, _VERDICTS[name]) if name in _VERDICTS else u32(1, _JUMP) + text(2, name)
    return [_expression("immediate", u32(1, 0), nest(2, nest(2, verdict)))]


def _extension(kind: str, known: dict[tuple[str, ...], _Extension], words: Sequence[str]) -> bytes:
    extension = known[tuple(words[:-1])]
    return _expression(
        kind, text(1, words[0]), u32(2, extension.revision), attribute(3, extension.pack(words[-1]))
    )


def _comparison(how: int, value: bytes) -> bytes:
    return _expression("cmp", u32(1, _REGISTER), u32(2, how), nest(3, attribute(1, value)))


def _expression(name: str, *data: bytes) -> bytes:
    return text(_EXPR_NAME, name) + nest(_EXPR_DATA, *data)


def _number(data: dict[int, bytes], attribute_type: int) -> int:
    return int.from_bytes(data[attribute_type], "big")


def _read_comparison(
    loaded: Sequence[tuple[str, dict[int, bytes]]], data: dict[int, bytes], before: Sequence[Match]
) -> Match:
    """Read a comparison with what was loaded: an address, the protocol, a port of it, or the mark."""
    value, is_not = attributes(data[3])[1], {_EQUAL: False, _NOT_EQUAL: True}[_number(data, 2)]
    (name, source), *rest = loaded
    masks = [_read_mask(*each) for each in rest]
    place = [_number(source, each) for each in ((2, 3, 4) if name == "payload" else (2,))]
    option, size = _ADDRESSES.get(place[1], ("", 0)) if name == "payload" else ("", 0)
    if option and place[0] == _NETWORK_HEADER and len(value) == place[2] and len(masks) < 2:
        # iptables loads only the bytes that a short prefix compares.
        [mask] = masks or [b"\xff" * len(value)]
        bits = int.from_bytes(mask.ljust(size, b"\0"), "big")
        prefix = bits.bit_count()
        if bits != ((1 << prefix) - 1) << (size * 8 - prefix):
            raise _UnknownError(place)
        network = ip_network((value.ljust(size, b"\0"), prefix))
        return (*(("!",) if is_not else ()), option, str(network))
    if is_not:
        raise _UnknownError(place)
    if (name, *place) == ("meta", _META_MARK):
        # In the byte order of the machine.
        return (
            "-m",
            "mark",
            "--mark",
            "/".join(f"{int.from_bytes(v, sys.byteorder):#x}" for v in (value, *masks)),
        )
    if (name, *place) == ("meta", _META_L4PROTO) and not masks:
        return "-p", _PROTOCOL_NAMES[value[0]]
    if (name, *place) == ("payload", _TRANSPORT_HEADER, _DESTINATION_PORT, 2) and not masks:
        [protocol] = [match[1] for match in before if match[0] == "-p"]
        return "-m", protocol, "--dport", str(int.from_bytes(value, "big"))
    raise _UnknownError(place)


def _read_mask(name: str, data: dict[int, bytes]) -> bytes:
    if name != "bitwise" or any(attributes(data[5])[1]):
        raise _UnknownError(name)
    return attributes(data[4])[1]


def _read_extension(
    known: dict[tuple[str, ...], _Extension], data: dict[int, bytes], before: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Read a match or a target: it is the one which packs what it reads to the very same bytes."""
    name, revision, info = shown_text(data[1]), _number(data, 2), data[3]
    for words, extension in known.items():
        if words[0] == name and extension.revision == revision:
            value = extension.unpack(info)
            if extension.pack(value) == info:
                return (*before, *words, *((value,) if value else ()))
    raise _UnknownError(name)


def _read_verdict(data: dict[int, bytes]) -> tuple[str, ...]:
    verdict = attributes(attributes(data[2])[2])
    code = _number(verdict, 1)
    return (shown_text(verdict[2]) if code == _JUMP else _VERDICT_NAMES[code],)


def _pack_comment(value: str) -> bytes:
    if len(value.encode()) >= _COMMENT_BYTES:
        raise _UnknownError(value)
    return value.encode().ljust(_COMMENT_BYTES, b"\0")


def _pack_ports(value: str) -> bytes:
    ports = [int(each) for each in value.split(",")]
    rest = [0] * (_MOST_PORTS - len(ports))
    return _MULTIPORT.pack(_MULTIPORT_DESTINATION, len(ports), *ports, *rest, b"", 0)


def _unpack_ports(info: bytes) -> str:
    _, count, *ports = _MULTIPORT.unpack(info)
    return ",".join(map(str, ports[:count]))


def _pack_port(layout: struct.Struct, value: str) -> bytes:
    return layout.pack(*_ANY_PORT, int(value), int(value), 0)


def _unpack_port(layout: struct.Struct, info: bytes) -> str:
    return str(layout.unpack(info)[2])


def _pack_marks(value: str) -> list[int]:
    return [int(each, 16) for each in value.split("/")]


def _show_marks(mark: int, mask: int, *_: int) -> str:
    return f"{mark:#x}/{mask:#x}"


def _pack_addrtype(source: int, destination: int, flags: int, value: str) -> bytes:
    if value != "LOCAL":
        raise _UnknownError(value)
    return _ADDRTYPE.pack(source, destination, flags)


def _is_local(_: bytes) -> str:
    return "LOCAL"


def _pack_states(value: str) -> bytes:
    if value != "RELATED,ESTABLISHED":
        raise _UnknownError(value)
    return _CONNTRACK.pack(*[0] * 7, _BY_STATE, 0, _ESTABLISHED | _RELATED, *[0] * 5)


def _pack_dnat(family: int, value: str) -> bytes:
    found = re.fullmatch(r"([0-9.]+):([0-9]+)" if family == nft.IPV4 else r"\[([0-9a-f:]+)\]:([0-9]+)", value)
    if found is None:
        raise _UnknownError(value)
    address, port = ip_address(found[1]).packed, int(found[2]).to_bytes(2, "big")
    return _DNAT_RANGE.pack(_MAPS_ADDRESS_AND_PORT, address, address, port, port)


def _unpack_dnat(family: int, info: bytes) -> str:
    _, address, _, port, _ = _DNAT_RANGE.unpack(info)
    shown = str(IPv4Address(address[:4])) if family == nft.IPV4 else f"[{IPv6Address(address)}]"
    return f"{shown}:{int.from_bytes(port, 'big')}"


def _pack_masquerade(family: int, _: str) -> bytes:
    return _MASQUERADE_RANGES[family]


# By the words before the value. An extension is read by trying those of its name.
_MATCHES: dict[tuple[str, ...], _Extension] = {
    ("comment", "--comment"): _Extension(0, _pack_comment, shown_text),
    ("multiport", "--dports"): _Extension(1, _pack_ports, _unpack_ports),
    ("tcp", "--dport"): _Extension(0, partial(_pack_port, _TCP), partial(_unpack_port, _TCP)),
    ("udp", "--dport"): _Extension(0, partial(_pack_port, _UDP), partial(_unpack_port, _UDP)),
    ("mark", "--mark"): _Extension(
        1,
        lambda value: _MARK_MATCH.pack(*_pack_marks(value), 0),
        lambda info: _show_marks(*_MARK_MATCH.unpack(info)),
    ),
    ("conntrack", "--ctstate"): _Extension(3, _pack_states, lambda _: "RELATED,ESTABLISHED"),
    ("addrtype", "--dst-type"): _Extension(1, partial(_pack_addrtype, 0, _LOCAL, 0), _is_local),
    ("addrtype", "--src-type"): _Extension(1, partial(_pack_addrtype, _LOCAL, 0, 0), _is_local),
    ("addrtype", "!", "--src-type"): _Extension(
        1, partial(_pack_addrtype, _LOCAL, 0, _NOT_SOURCE), _is_local
    ),
}
_TARGETS: dict[int, dict[tuple[str, ...], _Extension]] = {
    family: {
        ("DNAT", "--to-destination"): _Extension(
            2, partial(_pack_dnat, family), partial(_unpack_dnat, family)
        ),
        ("MASQUERADE",): _Extension(0, partial(_pack_masquerade, family), lambda _: ""),
        ("MARK", "--set-xmark"): _Extension(
            2,
            lambda value: _MARK_TARGET.pack(*_pack_marks(value)),
            lambda info: _show_marks(*_MARK_TARGET.unpack(info)),
        ),
    }
    for family in (nft.IPV4, nft.IPV6)
}
_COUNTER = text(_EXPR_NAME, "counter")
