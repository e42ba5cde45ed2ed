"""Options to send, the result of an acknowledgement, and leases on record; all pure."""

from __future__ import annotations

import json
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni import conf as confs
from cni.errors import CniError, Code
from cni_dhcp import lease as leases
from cni_dhcp import packets
from cni_dhcp.conf import DhcpConf
from cni_dhcp.lease import Identity
from cni_dhcp.packets import MalformedError, Message
from cni_dhcp.plan import plan_options, plan_result

MAC = bytes.fromhex("0a0000000001")
WHO = Identity(MAC, {packets.CLIENT_IDENTIFIER: b"\0x"})
ROUTER, SERVER, ADDRESS = (IPv4Address(f"10.1.0.{last}") for last in (1, 2, 9))
USUAL = {packets.SUBNET_MASK: b"\xff\xff\xff\0", packets.SERVER_IDENTIFIER: SERVER.packed}


def ack(**more: bytes) -> Message:
    """Return an acknowledgement with options by their names in `packets`."""
    options = USUAL | {getattr(packets, name): value for name, value in more.items()}
    return Message(packets.ACK, 7, MAC, options, your_address=ADDRESS)


def options_of(args: str = "", **ipam: Any) -> dict[int, bytes]:
    """Return the options that a configuration makes."""
    conf = confs.read(DhcpConf, {"name": "net1", "ipam": {"type": "dhcp"} | ipam})
    return plan_options(conf, "c1", "eth0", args)


def test_the_usual_options() -> None:
    options = options_of()
    assert options[packets.CLIENT_IDENTIFIER] == b"\0c1/net1/eth0"
    # RFC 3442: option 121 is asked for before options 3 and 33.
    assert options[packets.PARAMETER_LIST][:3] == bytes([121, 3, 1])


def test_options_that_the_configuration_names() -> None:
    request = [{"option": "42"}, {"option": "routers"}]
    assert options_of(request=request)[packets.PARAMETER_LIST].endswith(b"\x2a")
    request[0]["skipDefault"] = True  # type: ignore[assignment]
    assert options_of(request=request)[packets.PARAMETER_LIST] == bytes([42, 3])
    provide = [
        {"option": "61", "value": "me"},
        {"option": "12", "value": "a", "fromArg": "N"},
        {"option": "60"},
    ]
    assert options_of(provide=provide)[packets.CLIENT_IDENTIFIER] == b"me"
    assert options_of(provide=provide)[packets.HOST_NAME] == b"a"
    assert options_of("X=1;N=b=c;odd", provide=provide)[packets.HOST_NAME] == b"b=c"
    assert packets.VENDOR_CLASS not in options_of(provide=provide)
    with pytest.raises(CniError) as refused:
        options_of(f"N={'x' * 256}", provide=provide)
    assert refused.value.code == Code.INVALID_ENVIRONMENT


def test_the_router_and_static_routes_make_routes() -> None:
    result = plan_result(ack(ROUTERS=ROUTER.packed * 2, STATIC_ROUTES=b"\x0a\2\0\0" + SERVER.packed), 5)
    assert [(str(each.address), each.gateway) for each in result.ips] == [("10.1.0.9/24", ROUTER)]
    shown = [(str(each.dst), each.gw, each.priority) for each in result.routes]
    assert shown == [("10.0.0.0/8", SERVER, 5), ("0.0.0.0/0", ROUTER, 5)]


def test_option_121_stands_alone_with_the_link_first() -> None:
    routes = b"\0" + ROUTER.packed + b"\x20" + ROUTER.packed + bytes(4)
    result = plan_result(ack(ROUTERS=SERVER.packed, CLASSLESS_ROUTES=routes), 0)
    shown = [(str(each.dst), each.gw, each.scope) for each in result.routes]
    assert shown == [("10.1.0.1/32", packets.NOWHERE, 253), ("0.0.0.0/0", ROUTER, None)]
    assert result.ips[0].gateway == SERVER
    assert plan_result(ack(ROUTERS=SERVER.packed, CLASSLESS_ROUTES=b""), 0).routes == ()


def test_dns_and_malformed_options() -> None:
    dns = plan_result(ack(DNS_SERVERS=SERVER.packed, DOMAIN_NAME=b"a.b\n\0", DOMAIN_SEARCH=b"\1c\0"), 0).dns
    assert (dns.nameservers, dns.domain, dns.search) == ((str(SERVER),), "a.b", ("c",))
    for wrong in ({"ROUTERS": b"\1"}, {"SUBNET_MASK": b"\1\2"}, {"DOMAIN_SEARCH": b"\5a"}):
        with pytest.raises(MalformedError):
            plan_result(ack(**wrong), 0)


@pytest.mark.parametrize(
    ("options", "times"),
    [
        ({}, (1900, 3160, 3700)),
        ({"LEASE_TIME": 100}, (150, 185, 200)),
        ({"LEASE_TIME": 100, "RENEWAL_TIME": 10, "REBINDING_TIME": 20}, (110, 120, 200)),
        ({"LEASE_TIME": 100, "RENEWAL_TIME": 90, "REBINDING_TIME": 20}, (150, 185, 200)),
        ({"LEASE_TIME": 100, "RENEWAL_TIME": 10, "REBINDING_TIME": 200}, (150, 185, 200)),
        ({"LEASE_TIME": packets.FOREVER}, (0, 0, None)),
    ],
)
def test_times_of_a_lease(options: dict[str, int], times: tuple[float, float, float | None]) -> None:
    message = ack(**{name: value.to_bytes(4) for name, value in options.items()})
    lease = leases.of_acknowledgement(message, b"\2" * 6, WHO, 100)
    assert (lease.renew_s, lease.rebind_s, lease.expires_s) == times
    assert lease.is_valid(150)
    assert lease.is_valid(10_000) is (times[2] is None)
    assert leases.read(json.loads(json.dumps(lease.to_values()))) == lease


def test_an_acknowledgement_without_a_server_or_an_address_is_none() -> None:
    for wrong in (ack()._replace(options={}), ack()._replace(your_address=packets.NOWHERE)):
        with pytest.raises(MalformedError):
            leases.of_acknowledgement(wrong, b"\2" * 6, WHO, 100)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=3,
)
SOUND = leases.of_offer(ack(), b"\2" * 6, WHO).to_values()


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(SOUND)), JSON, max_size=3))
def test_a_damaged_record_is_no_lease(changes: dict[str, Any]) -> None:
    lease = leases.read(SOUND | changes)
    assert lease is None or leases.read(lease.to_values()) is not None
