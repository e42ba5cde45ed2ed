"""Whatever the kernel and the programs of the firewall list: it is read, or an error, and in finite time.

The kernel is believed more than users are: a message of the right kind that lacks its parts may be any
error of those that the skeleton answers, but none may be waited for without end.
"""

from __future__ import annotations

import socket
import struct
from contextlib import contextmanager, suppress
from functools import partial
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from cni.errors import CniError
from cni.firewall import nft
from cni.firewall.intents import Masquerade, Owner, PortForward, PortMapping
from cni.firewall.iptables import execute, rules, stale
from cni.firewall.iptables.rule import Rule, parse_rule
from cni.firewall.nftables import elements
from cni.kernel import addr, conntrack, link, nfnetlink, route, rtnetlink
from tests.fuzz.cases import cases
from tests.fuzz.place import OLD_BRIDGE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cni.testing import Host
    from tests.fuzz.cases import Tried
    from tests.fuzz.conftest import Fuzz

OWNERS = st.builds(
    Owner, st.sampled_from(["net1", "a.b-c"]), st.sampled_from(["c1", "x" * 300]), st.just("eth0")
)
ADDRESS = ip_interface("10.1.0.9/16")
PORT = PortMapping("tcp", 8080, 80, None)
SPOILERS = st.sampled_from(["", " ", '"', "\\", "\x00", "-j", "-A", "é", "--comment", "\n"])


def _rules(owner: Owner) -> list[Rule]:
    masquerade, forward = Masquerade(owner, (ADDRESS,)), PortForward(owner, (PORT,), (ADDRESS,))
    return [*rules.masquerade(masquerade, 4).made, *rules.port_forward(forward, 4).made]


def _iptables(owner: Owner, at: int, spoiler: str, cut: int) -> bool:
    """Read listings of our own rules, whole and with something in the middle or cut off."""
    listed = _rules(owner)
    assert [parse_rule(rules.NAT, rule.line) for rule in listed] == listed
    text = "\n".join(
        ["-P INPUT ACCEPT", *(line for rule in listed for line in (f"-N {rule.chain}", rule.line))]
    )
    place = at % (len(text) + 1)
    spoilt = (text[:place] + spoiler + text[place:])[: cut or None]
    for chain, found in execute._split_listing(rules.NAT, spoilt).items():  # noqa: SLF001 - what reads them
        assert isinstance(chain, str)
        found_chains = stale.stale_chains(found, owner.network, (), ("CNI-", "CNI-DN-", "CNI-SN-"))
        assert all(map(rules.is_containers, found_chains))
    assert "\n" not in execute._words(spoilt)  # noqa: SLF001 - as above
    return not spoiler and not cut


# netlink(7): length, type, flags, sequence number, port ID.
_HEADER = struct.Struct("=IHHII")
KINDS = st.sampled_from([2, 2, 3, 3, 16, 20, 24, 10 << 8, 1 << 8])
FLAGS = st.sampled_from([0, 0x100, 0x200, 0x2, 0x302])
PAYLOADS = st.binary(max_size=80) | st.sampled_from([bytes(4), b"\xfe\xff\xff\xff" + bytes(16), bytes(20)])
ATTRIBUTES = st.lists(
    st.builds(
        lambda kind, data, off: struct.pack("=HH", (len(data) + 4 + off) % (1 << 16), kind) + data,
        st.integers(0, 70),
        st.binary(max_size=12),
        st.sampled_from([0, 0, 0, -4, 1, 1000]),
    ),
    max_size=6,
).map(b"".join)
BODIES = PAYLOADS | st.builds(
    lambda head, attrs: bytes(head) + attrs, st.sampled_from([4, 8, 12, 16]), ATTRIBUTES
)
MESSAGES = st.builds(
    lambda kind, flags, number, body, off: (
        _HEADER.pack(max(0, 16 + len(body) + off), kind, flags, number, 0) + body
    ),
    KINDS,
    FLAGS,
    st.sampled_from([1, 1, 1, 2, 0]),
    BODIES,
    st.sampled_from([0, 0, 0, -16, -1000, 5, 1 << 20]),
)
DATAGRAMS = st.lists(
    st.lists(MESSAGES, min_size=1, max_size=4).map(b"".join) | st.binary(min_size=1, max_size=40), max_size=4
)
_ENDS = (CniError, struct.error, ValueError, KeyError)


class _FromTheKernel:
    """A socket whose messages have the kernel's address, as netlink's have."""

    def __init__(self, opened: socket.socket) -> None:
        self._opened = opened

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opened, name)

    def recvfrom(self, size: int, flags: int = 0) -> tuple[bytes, tuple[int, int]]:
        return self._opened.recv(size, flags), (0, 0)


@contextmanager
def _answering(opened: Any, datagrams: list[bytes]) -> Iterator[None]:
    """Replace the kernel by a socket that sends these responses and no others."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 0, 1000))
        for each in datagrams:
            ours.send(each)
        opened._socket = _FromTheKernel(theirs)  # noqa: SLF001 - nothing else stands between
        yield


RTNETLINK: list[Callable[[rtnetlink.Netlink], object]] = [
    lambda nl: link.find(nl, "eth0"),
    link.list_links,
    lambda nl: link.remove(nl, "eth0"),
    addr.list_addrs,
    lambda nl: route.find_link_index(nl, ADDRESS.ip),
    lambda nl: nl.heard(0),
]


def _rtnetlink(what: int, datagrams: list[bytes]) -> bool:
    nl = rtnetlink.Netlink.__new__(rtnetlink.Netlink)
    nl._number = 0  # noqa: SLF001 - the first answer is to number 1
    with _answering(nl, datagrams), suppress(*_ENDS):
        RTNETLINK[what](nl)
        return True
    return False


NFNETLINK: list[Callable[[], object]] = [
    nft.generation,
    partial(nft.find_chain, nft.IPV4, "nat", "x"),
    partial(nft.list_chains, nft.IPV4, "nat"),
    partial(nft.list_rules, nft.IPV4, "nat", "x"),
    partial(nft.commit_deletions, [nft.delete_table(nft.IPV4, "x")]),
    partial(elements.list_sets, nft.IPV4),
    partial(elements.search, nft.IPV4, "ports", ""),
    partial(conntrack.flush, "udp", 53, None, socket.AF_INET),
]


def _nfnetlink(what: int, datagrams: list[bytes]) -> bool:
    opened = nfnetlink.kept()
    before, opened._sequence = opened._socket, iter(range(1, 1 << 16))  # noqa: SLF001
    try:
        with _answering(opened, datagrams), suppress(*_ENDS):
            NFNETLINK[what]()
            return True
    finally:
        opened._socket = before  # noqa: SLF001 - as it was
    return False


def _record() -> dict[str, list[bytes]]:
    """Record real messages of the kernel."""
    with rtnetlink.Netlink() as nl:
        kinds = {"link": rtnetlink.RTM_GETLINK, "addr": rtnetlink.RTM_GETADDR}
        heads = {"link": bytes(16), "addr": bytes(8)}
        return {
            name: nl.dump(rtnetlink.Message("record", kind, body=heads[name])) for name, kind in kinds.items()
        }


PARSERS: dict[str, Callable[[bytes], object]] = {"link": link._parse, "addr": addr._parse}  # noqa: SLF001


def _spoilt(
    recorded: dict[str, list[bytes]], what: str, which: int, change: tuple[int, int], cut: int
) -> bool:
    """Read a message of the kernel with one octet changed, or without its end."""
    payload = bytearray(recorded[what][which % len(recorded[what])])
    at, by = change
    payload[at % len(payload)] ^= by
    with suppress(*_ENDS):
        PARSERS[what](bytes(payload[: len(payload) - cut]))
        return True
    return False


def _try_spoilt(part: int) -> Tried:
    recorded = _record()
    assert any(OLD_BRIDGE.encode() in each for each in recorded["link"])
    octets = st.integers(0, 255)
    spoil = cases(
        0.25,
        what=st.sampled_from(sorted(PARSERS)),
        which=octets,
        change=st.tuples(st.integers(0, 2000), octets),
        cut=st.just(0) | st.integers(0, 40),
    )
    return spoil(_spoilt)(recorded, part=part)


def test_listings_of_iptables(fuzz: Fuzz) -> None:
    places = st.integers(0, 2000)
    fuzz.run(cases(0.25, owner=OWNERS, at=places, spoiler=SPOILERS, cut=st.just(0) | places)(_iptables))


def test_messages_of_rtnetlink(fuzz: Fuzz) -> None:
    kinds = st.integers(0, len(RTNETLINK) - 1)
    fuzz.run(cases(0.25, what=kinds, datagrams=DATAGRAMS)(_rtnetlink))


def test_messages_of_nfnetlink(fuzz: Fuzz, host: Host) -> None:
    kinds = st.integers(0, len(NFNETLINK) - 1)
    fuzz.run_inside(host, cases(0.25, what=kinds, datagrams=DATAGRAMS)(_nfnetlink))


def test_messages_of_the_kernel_with_faults(fuzz: Fuzz, host: Host) -> None:
    fuzz.run_inside(host, _try_spoilt)
