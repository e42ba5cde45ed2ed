"""The frames that announce addresses, byte for byte."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

from hypothesis import given
from hypothesis import strategies as st

from cni.neigh import checksum, gratuitous_arp, unsolicited_advertisement

MAC = bytes.fromhex("021122334455")


def test_a_gratuitous_arp_asks_everybody_for_its_own_address() -> None:
    """RFC 5227, section 3: sender and target protocol address are both the announced one."""
    assert gratuitous_arp(MAC, IPv4Address("10.1.0.2")).hex() == (
        "ffffffffffff" + "021122334455" + "0806"
        "0001" + "0800" + "06" + "04" + "0001"
        "021122334455" + "0a010002" + "000000000000" + "0a010002"
    )  # fmt: skip


def test_an_unsolicited_advertisement_goes_to_all_nodes_and_overrides() -> None:
    """RFC 4861, section 7.2.6: all-nodes multicast, Solicited flag zero, Override flag may be set."""
    frame = unsolicited_advertisement(MAC, IPv6Address("fd00::2"))
    assert frame[:14].hex() == "333300000001" + "021122334455" + "86dd"
    ip, icmp = frame[14:54], frame[54:]
    assert ip[:8].hex() == "60000000" + f"{len(icmp):04x}" + "3a" + "ff"
    assert ip[8:24] == IPv6Address("fd00::2").packed
    assert ip[24:] == IPv6Address("ff02::1").packed
    assert icmp[0] == 136
    assert icmp[4:8].hex() == "20000000"
    assert icmp[8:24] == IPv6Address("fd00::2").packed
    assert icmp[24:].hex() == "0201" + "021122334455"


@given(address=st.ip_addresses(v=6))
def test_the_checksum_of_an_advertisement_proves_right(address: IPv6Address) -> None:
    """RFC 1071: the sum over a message with its checksum in place is all ones."""
    frame = unsolicited_advertisement(MAC, address)
    icmp = frame[54:]
    pseudo = frame[14 + 8 : 54] + struct.pack("!II", len(icmp), 58)
    assert checksum(pseudo + icmp) == 0
