"""Messages as bytes: what is encoded is read again, and no bytes raise anything but MalformedError."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_dhcp import packets
from cni_dhcp.packets import MalformedError, Message

MAC = bytes.fromhex("0a0000000001")
CODES = st.integers(1, 254).filter(lambda code: code not in {52, packets.MESSAGE_TYPE})
OPTIONS = st.dictionaries(CODES, st.binary(max_size=300), max_size=3)
ADDRESSES = st.integers(0, packets.FOREVER).map(IPv4Address)


def reply(options: dict[int, bytes], kind: int = packets.ACK) -> Message:
    """Return a message as a client parses it."""
    text = bytearray(packets.encode(Message(kind, 7, MAC, options)))
    text[0] = 2
    return packets.parse(bytes(text))


def read_everything(message: Message) -> None:
    for read in (message.prefix_length, message.static_routes, message.classless_routes):
        with suppress(MalformedError):
            read()
    for code in message.options:
        for read_one in (message.address, message.addresses, message.number, message.text):
            with suppress(MalformedError):
                read_one(code)
    with suppress(MalformedError):
        assert all(len(each) <= 253 and each.isprintable() for each in message.search_domains())


MESSAGES = st.builds(
    Message,
    st.integers(1, 8),
    st.integers(0, packets.FOREVER),
    st.just(MAC),
    OPTIONS,
    ADDRESSES,
    ADDRESSES,
    st.booleans(),
)


@settings(deadline=None)
@given(MESSAGES)
def test_what_is_encoded_is_read_again(message: Message) -> None:
    text = packets.encode(message)
    assert len(text) >= 300
    assert packets.parse_request(text) == message


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    with suppress(MalformedError):
        packets.unwrap(text)
    head = bytes([2, 1, 6, 0]) + bytes(24) + MAC + bytes(202) + b"\x63\x82\x53\x63"
    for each in (text, head + text, head + b"\x35\x01\x05" + text):
        with suppress(MalformedError):
            read_everything(packets.parse(each))


@settings(deadline=None)
@given(st.binary(max_size=80))
def test_any_value_of_an_option_is_read_or_refused(value: bytes) -> None:
    codes = (packets.SUBNET_MASK, packets.STATIC_ROUTES, packets.CLASSLESS_ROUTES, packets.DOMAIN_SEARCH)
    read_everything(reply(dict.fromkeys(codes, value)))


@settings(deadline=None)
@given(st.binary(max_size=60), ADDRESSES, ADDRESSES)
def test_headers(text: bytes, source: IPv4Address, target: IPv4Address) -> None:
    packet = packets.wrap(text, source, target)
    # A sum over a header with its checksum is zero.
    assert packets.checksum(packet[:20]) == 0
    pseudo = source.packed + target.packed + bytes([0, 17]) + (len(packet) - 20).to_bytes(2)
    assert packets.checksum(pseudo + packet[20:]) == 0
    with pytest.raises(MalformedError):
        packets.unwrap(packet)
    from_server = packet[:20] + packet[22:24] + packet[20:22] + packet[24:]
    assert packets.unwrap(from_server + b"padding of Ethernet") == text


def test_options_in_the_fields_for_names() -> None:
    text = bytearray(packets.encode(Message(packets.OFFER, 1, MAC, {52: b"\3"})))
    text[0] = 2
    text[108:114] = bytes([12, 2]) + b"ab" + bytes([255, 9])
    text[44:49] = bytes([15, 1]) + b"c" + bytes([255, 9])
    assert packets.parse(bytes(text)).options == {12: b"ab", 15: b"c"}


def test_routes_of_both_kinds() -> None:
    classless = "18 0a0908 0a010007  00 0a010001  20 01020304 00000000"
    static = "0a090807 0a010001  ac100500 0a010002  00000000 01010101  c0000209 0a010003"
    values = {packets.CLASSLESS_ROUTES: classless, packets.STATIC_ROUTES: static}
    message = reply({option: bytes.fromhex(value) for option, value in values.items()})
    assert message.classless_routes() == [
        (IPv4Network("10.9.8.0/24"), IPv4Address("10.1.0.7")),
        (IPv4Network("0.0.0.0/0"), IPv4Address("10.1.0.1")),
        (IPv4Network("1.2.3.4/32"), packets.NOWHERE),
    ]
    assert [str(target) for target, _ in message.static_routes()] == [
        "10.0.0.0/8",
        "172.16.0.0/16",
        "192.0.2.0/24",
    ]
    assert reply({}).classless_routes() is None


@pytest.mark.parametrize(("mask", "length"), [("ffffff00", 24), ("00000000", 0), ("ffffffff", 32)])
def test_masks(mask: str, length: int) -> None:
    assert reply({packets.SUBNET_MASK: bytes.fromhex(mask)}).prefix_length() == length


@pytest.mark.parametrize("value", [b"\xff\0\xff\0", b"\xff", b"\0\0\0\xff"])
def test_masks_that_are_none(value: bytes) -> None:
    with pytest.raises(MalformedError):
        reply({packets.SUBNET_MASK: value}).prefix_length()
    with pytest.raises(MalformedError, match="Subnet Mask not found"):
        reply({}).prefix_length()


def test_search_domains_are_compressed() -> None:
    # The example of RFC 3397, section 2.
    value = b"\3eng\5apple\3com\0" + b"\x09marketing\xc0\x04"
    assert reply({packets.DOMAIN_SEARCH: value}).search_domains() == ("eng.apple.com", "marketing.apple.com")
    with pytest.raises(MalformedError):
        reply({packets.DOMAIN_SEARCH: b"\1a\xc0\x02"}).search_domains()


def test_the_client_identifier_is_that_of_the_go_plugin() -> None:
    assert packets.client_identifier("cid", "net1", "eth0") == b"\0cid/net1/eth0"
    assert len(packets.client_identifier("c" * 300, "net1", "eth0")) == 255
