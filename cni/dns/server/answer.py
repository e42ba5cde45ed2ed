"""Answer a query from the records. dnspython reads the query and writes the answer. Pure.

A name is looked up in the asker's networks in their order. The first network that has it answers. Not
forwarded for any asker are names in the domain of any network, names of one label, and addresses in the
subnet of any network.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, NamedTuple

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import dns.rrset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.dns.book import Book, View, Zone
    from cni.result import IpNetwork

# What RFC 6891 and the "DNS flag day 2020" recommend: it is never fragmented.
LARGEST_UDP = 1232
_SMALLEST_UDP = 512
_LARGEST_TCP = 0xFFFF
# A published name may change at any time.
_TTL_S = 0
_HEADER = struct.Struct("!6H")
_QUESTION = _HEADER.size
_QR, _OPCODE, _RD = 0x8000, 0x7800, 0x0100
_RCODE = 0x000F
# RFC 1035, sections 2.3.4, 4.1.2, 4.1.3 and 4.1.4: the pointer to the question's name.
_LONGEST_LABEL, _LONGEST_NAME, _TYPE_AND_CLASS, _BEFORE_ADDRESS, _POINTER = 63, 255, 4, 12, b"\xc0\x0c"
_FAMILIES = {b"\0\x01": socket.AF_INET, b"\0\x1c": socket.AF_INET6}
_REVERSED = "arpa"
# How many orders of a name's addresses are prepared.
_MOST_ORDERS = 16
# An AAAA record whose name is compressed; and how many fit beside a name of any length and EDNS.
_LARGEST_RECORD, _ALWAYS_FITS = 28, 7
_REVERSE = {dns.name.from_text("in-addr.arpa."): 4, dns.name.from_text("ip6.arpa."): 6}
_NOT_FOR_QUERIES = {dns.rdatatype.AXFR, dns.rdatatype.IXFR, dns.rdatatype.OPT, dns.rdatatype.TSIG}

UNKNOWN = dns.rcode.NXDOMAIN

# The answer in several orders that take turns; () for no answer at all. None: the query is forwarded.
Replies = tuple[bytes, ...] | None


def answer(book: Book, view: View | None, query: bytes, *, is_tcp: bool) -> Replies:
    """Return the answer to a query, in the orders that take turns, or None to forward it."""
    if (refused := _refuse(query)) is not None:
        return refused
    try:
        message = dns.message.from_wire(query, ignore_trailing=True)
        question = message.question[0]
    except (dns.exception.DNSException, ValueError, IndexError, struct.error):
        return (_error(query, dns.rcode.FORMERR),)
    response = dns.message.make_response(message, recursion_available=True, our_payload=LARGEST_UDP)
    if message.edns > 0:
        response.set_rcode(dns.rcode.BADVERS)
    elif view is None or question.rdclass != dns.rdataclass.IN or question.rdtype in _NOT_FOR_QUERIES:
        response.set_rcode(dns.rcode.REFUSED)
    elif (found := _look_up(book, view, question)) is not None:
        response.flags |= dns.flags.AA
        return _render(response, *found, _limit(message, is_tcp=is_tcp))
    elif view.forwarding is not None:
        return None
    else:
        response.set_rcode(dns.rcode.NXDOMAIN)
    return (response.to_wire(),)


def _refuse(query: bytes) -> tuple[bytes, ...] | None:
    """Return the answer to what is no query with one question, which may be none; None for a query."""
    if len(query) < _HEADER.size:
        return ()
    _, flags, questions, *_ = _HEADER.unpack_from(query)
    if flags & _QR:
        # Answering an answer could go on for ever.
        return ()
    if flags & _OPCODE:
        return (_error(query, dns.rcode.NOTIMP),)
    return None if questions == 1 else (_error(query, dns.rcode.FORMERR),)


def refusal(query: bytes) -> bytes:
    """Return the answer that the server could not get an answer: SERVFAIL."""
    return _error(query, dns.rcode.SERVFAIL)


def _look_up(
    book: Book, view: View, question: dns.rrset.RRset
) -> tuple[dns.rcode.Rcode, list[dns.rrset.RRset]] | None:
    """Return response code and records for a name; None if it is for others to answer."""
    name = question.name
    labels = [each.decode("latin-1").lower() for each in name.labels if each]
    for suffix, version in _REVERSE.items():
        if name.is_subdomain(suffix):
            network = _reversed(labels, version)
            return None if network is None else _look_up_reverse(book, view, question, network)
    found = _look_up_name(book, view, labels)
    if isinstance(found, list):
        return dns.rcode.NOERROR, _addresses(question, found)
    return None if found is None else (found, [])


def _look_up_name(book: Book, view: View, labels: Sequence[str]) -> list[str] | dns.rcode.Rcode | None:
    """Return the addresses of a name, or that it does not exist; None if it is for others to answer."""
    text = ".".join(labels)
    for zone in view.zones:
        if (short := _name_in(zone, text)) is not None:
            return zone.addresses(short)
    if any(text == each.settings.domain for each in view.zones):
        return []
    is_ours = len(labels) == 1 or book.is_managed(labels)
    return dns.rcode.NXDOMAIN if is_ours else None


class Plain(NamedTuple):
    """A query whose answer is that of others of its kind, with its own name and address.

    The name ends at `end`. `address` is that of the one record of the answer, b"" for none.
    """

    end: int
    rcode: dns.rcode.Rcode
    address: bytes = b""

    def kind(self, query: bytes) -> tuple[bytes, bytes, dns.rcode.Rcode, bool]:
        """Return what queries of its kind have in common."""
        return query[2:_QUESTION], query[self.end :], self.rcode, bool(self.address)


class Template(NamedTuple):
    """An answer without ID, name and address: what stands before, between and after these."""

    before: bytes
    between: bytes
    after: bytes

    def fill(self, query: bytes, plain: Plain) -> bytes:
        """Return the answer to a query, without the ID."""
        return self.before + query[_QUESTION : plain.end] + self.between + plain.address + self.after


def plain(book: Book, view: View, query: bytes) -> Plain | None:
    """Return what is needed to answer by a template; None for a query that dnspython must read."""
    labels, at = [], _QUESTION
    while at < len(query) and 0 < (length := query[at]) <= _LONGEST_LABEL:
        labels.append(query[at + 1 : at + 1 + length].decode("latin-1").lower())
        at += length + 1
    is_whole = at + _TYPE_AND_CLASS < len(query) and not query[at] and at - _QUESTION < _LONGEST_NAME
    if not is_whole or labels[-1:] == [_REVERSED]:
        return None
    found = _look_up_name(book, view, labels)
    if not isinstance(found, list):
        return Plain(at + 1, found) if found == dns.rcode.NXDOMAIN else None
    family = _FAMILIES.get(query[at + 1 : at + 3])
    wanted = [each for each in found if (":" in each) == (family == socket.AF_INET6)]
    if family is None or len(wanted) > 1:
        return None
    return Plain(at + 1, dns.rcode.NOERROR, *(socket.inet_pton(family, each) for each in wanted))


def template(query: bytes, plain: Plain, replies: Replies) -> Template | None:
    """Return the template of an answer; None if it has another form than that of its kind."""
    reply = replies[0] if replies else b""
    at = plain.end + (_TYPE_AND_CLASS + _BEFORE_ADDRESS if plain.address else 0)
    made = Template(reply[2:_QUESTION], reply[plain.end : at], reply[at + len(plain.address) :])
    if len(reply) < _QUESTION or made.fill(query, plain) != reply[2:]:
        return None
    is_of_kind = reply[3] & _RCODE == plain.rcode and reply[7] == bool(plain.address)
    is_named = not plain.address or made.between[_TYPE_AND_CLASS:].startswith(_POINTER)
    return made if is_of_kind and is_named else None


def _name_in(zone: Zone, text: str) -> str | None:
    """Return the name without the network's domain; None if the network does not have it."""
    suffix = f".{zone.settings.domain}"
    short = text.removesuffix(suffix) if zone.settings.domain else text
    return next((each for each in (short, text) if zone.has(each)), None)


def _addresses(question: dns.rrset.RRset, addresses: Sequence[str]) -> list[dns.rrset.RRset]:
    name, kind = question.name, question.rdtype
    wanted = {dns.rdatatype.A: [4], dns.rdatatype.AAAA: [6], dns.rdatatype.ANY: [4, 6]}.get(kind, [])
    found = []
    for version in wanted:
        of_version = [each for each in addresses if (":" in each) == (version == 6)]
        if of_version:
            type_ = dns.rdatatype.AAAA if version == 6 else dns.rdatatype.A
            found.append(dns.rrset.from_text_list(name, _TTL_S, dns.rdataclass.IN, type_, of_version))
    return found


def _look_up_reverse(
    book: Book, view: View, question: dns.rrset.RRset, network: IpNetwork
) -> tuple[dns.rcode.Rcode, list[dns.rrset.RRset]] | None:
    # The addresses of containers are ours also outside of the subnets that we know.
    holders = (zone.holder(str(network.network_address)) for zone in view.zones)
    found = [(zone, holder) for zone, holder in zip(view.zones, holders, strict=True) if holder]
    if not found or network.prefixlen < network.max_prefixlen:
        return (dns.rcode.NXDOMAIN, []) if _is_managed(book, network) else None
    zone, holder = found[0]
    domain = zone.settings.domain
    target = f"{holder.names[0]}.{domain}." if domain else f"{holder.names[0]}."
    is_asked = question.rdtype in {dns.rdatatype.PTR, dns.rdatatype.ANY}
    rrset = dns.rrset.from_text(question.name, _TTL_S, dns.rdataclass.IN, dns.rdatatype.PTR, target)
    return dns.rcode.NOERROR, [rrset] if is_asked else []


def _is_managed(book: Book, network: IpNetwork) -> bool:
    return book.is_managed_address(network) or bool(book.owner_of(str(network.network_address)))


def _reversed(labels: Sequence[str], version: int) -> IpNetwork | None:
    """Return the address of a reverse name, or the subnet of a part of one; None if it is no such name."""
    digits = list(reversed(labels[:-2]))
    try:
        if version == 4:
            padded = [*digits, *["0"] * (4 - len(digits))]
            return ip_network((str(ip_address(".".join(padded))), 8 * len(digits)))
        nibbles = "".join(digits)
        if any(len(each) != 1 for each in digits):
            return None
        return ip_network((int(nibbles.ljust(32, "0"), 16), 4 * len(digits)))
    except ValueError:
        return None


def _render(
    response: dns.message.Message, rcode: dns.rcode.Rcode, rrsets: list[dns.rrset.RRset], limit: int
) -> tuple[bytes, ...]:
    """Return the response in each order of its records: each asker gets another address first."""
    response.set_rcode(rcode)
    largest = max((len(each) for each in rrsets), default=0)
    most = (limit - len(response.to_wire())) // _LARGEST_RECORD if largest > _ALWAYS_FITS else largest
    if largest > most:
        # A client that cannot use TCP still gets some of the addresses.
        response.flags |= dns.flags.TC
    made = []
    for turn in range(min(_MOST_ORDERS, largest) or 1):
        response.answer = [one for each in rrsets for one in _turned(each, turn, most)]
        made.append(response.to_wire(max_size=limit))
    return tuple(made)


def _turned(rrset: dns.rrset.RRset, turn: int, most: int) -> list[dns.rrset.RRset]:
    """Return the records, each by itself: dnspython writes the records of a set in an order of its own."""
    items = list(rrset)
    turn %= len(items)
    turned = [*items[turn:], *items[:turn]][:most]
    return [dns.rrset.from_rdata(rrset.name, rrset.ttl, each) for each in turned]


def _limit(message: dns.message.Message, *, is_tcp: bool) -> int:
    if is_tcp:
        return _LARGEST_TCP
    return min(max(message.payload, _SMALLEST_UDP), LARGEST_UDP) if message.edns >= 0 else _SMALLEST_UDP


def _error(query: bytes, rcode: dns.rcode.Rcode) -> bytes:
    """Return an error with the query's ID; with its question, if that can be read."""
    number, flags, *_ = _HEADER.unpack_from(query)
    flags = _QR | (flags & (_OPCODE | _RD)) | rcode
    return _HEADER.pack(number, flags, 0, 0, 0, 0)
