"""The options that ADD sends, and the result that an acknowledgement gives. Pure."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv4Network
from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.result import Dns, Ip, Result, Route
from cni_dhcp.conf import option_code
from cni_dhcp.packets import (
    CLASSLESS_ROUTES,
    CLIENT_IDENTIFIER,
    DNS_SERVERS,
    DOMAIN_NAME,
    DOMAIN_SEARCH,
    LARGEST_MESSAGE,
    LEASE_TIME,
    NOWHERE,
    PARAMETER_LIST,
    REBINDING_TIME,
    RENEWAL_TIME,
    ROUTERS,
    STATIC_ROUTES,
    SUBNET_MASK,
    client_identifier,
)

if TYPE_CHECKING:
    from ipaddress import IPv4Address

    from cni_dhcp.conf import DhcpConf
    from cni_dhcp.packets import Message

_REQUIRED = (ROUTERS, SUBNET_MASK)
# Asked for as well. Option 121 precedes the options of routes that it replaces (RFC 3442).
_USED = (
    CLASSLESS_ROUTES,
    STATIC_ROUTES,
    DNS_SERVERS,
    DOMAIN_NAME,
    DOMAIN_SEARCH,
    LEASE_TIME,
    RENEWAL_TIME,
    REBINDING_TIME,
)
_LARGEST_MESSAGE = 1500
_LINK_SCOPE = 253
_DEFAULT = IPv4Network("0.0.0.0/0")


def plan_options(conf: DhcpConf, container_id: str, ifname: str, cni_args: str) -> dict[int, bytes]:
    """Return the options that each message of an attachment has. Raise CniError 4.

    `fromArg` takes a value of CNI_ARGS, whose other keys are anyone's.
    """
    given = dict(pair.split("=", 1) for pair in cni_args.split(";") if "=" in pair)
    asked = [option_code(each.option) for each in conf.ipam.request]
    if not any(each.skip_default for each in conf.ipam.request):
        asked = [*_USED[:1], *_REQUIRED, *_USED[1:], *asked]
    options = {
        CLIENT_IDENTIFIER: client_identifier(container_id, conf.name, ifname),
        LARGEST_MESSAGE: _LARGEST_MESSAGE.to_bytes(2),
        PARAMETER_LIST: bytes(dict.fromkeys(asked)),
    }
    for each in conf.ipam.provide:
        value = (given.get(each.from_arg, each.value) if each.from_arg else each.value).encode(
            errors="replace"
        )
        if len(value) > 255:
            raise CniError(
                Code.INVALID_ENVIRONMENT,
                f"value too long for option {each.option} from CNI_ARGS {each.from_arg}: {len(value)} bytes",
                f"Shorten {each.from_arg} to 255 bytes.",
            )
        if value:
            options[option_code(each.option)] = value
    return options


def plan_result(ack: Message, priority: int) -> Result:
    """Return addresses, routes and DNS settings. Raise MalformedError if an option has a wrong form."""
    address = IPv4Interface((ack.your_address, ack.prefix_length()))
    gateway = next(iter(ack.addresses(ROUTERS)), None)
    listed = ack.classless_routes()
    if listed is None:
        listed = ack.static_routes()
        if gateway is not None:
            listed.append((_DEFAULT, gateway))
    # First those to the link, through which the routers of the others may be reached.
    listed.sort(key=lambda each: each[1] != NOWHERE)
    routes = tuple(_route(target, router, priority) for target, router in listed)
    servers = tuple(map(str, ack.addresses(DNS_SERVERS)))
    dns = Dns(servers, ack.text(DOMAIN_NAME), ack.search_domains())
    return Result((), (Ip(address, gateway),), routes, dns)


def _route(target: IPv4Network, router: IPv4Address, priority: int) -> Route:
    # Without "gw" the interface plugin would take the first gateway.
    scope = _LINK_SCOPE if router == NOWHERE else None
    return Route(target, router, priority=priority, scope=scope)
