"""The messages that announce addresses, byte for byte."""

from __future__ import annotations

from ipaddress import IPv6Address

from cni.kernel.neigh import unsolicited_advertisement


def test_an_unsolicited_advertisement_overrides_what_is_known() -> None:
    """RFC 4861, section 4.4: Solicited flag zero, Override flag set, the target's MAC address as option."""
    message = unsolicited_advertisement(bytes.fromhex("021122334455"), IPv6Address("fd00::2"))
    assert message[:2] == bytes([136, 0])
    assert message[4:8].hex() == "20000000"
    assert message[8:24] == IPv6Address("fd00::2").packed
    assert message[24:].hex() == "0201" + "021122334455"
