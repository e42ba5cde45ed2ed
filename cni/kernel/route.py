"""Routes of a link."""

from __future__ import annotations

import errno
import socket
import struct
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

from cni.errors import KernelError
from cni.kernel import rtnetlink
from cni.kernel.attributes import attribute, attributes, nest, number, shown_number
from cni.kernel.rtnetlink import Message, Netlink
from cni.result import Route

if TYPE_CHECKING:
    from cni.result import IpAddress, IpNetwork

MAIN_TABLE = 254
# rtnetlink(7), struct rtmsg
_RTPROT_BOOT, _RTN_UNICAST, _RTM_F_CLONED, _RTM_F_FIB_MATCH = 3, 1, 0x200, 0x2000
# family, lengths of destination and source, type of service, table, protocol, scope, type, flags
_HEAD = struct.Struct("=8BI")
_DST, _OIF, _GATEWAY, _PRIORITY, _PREFSRC, _METRICS, _TABLE = 1, 4, 5, 6, 7, 8, 15
_METRIC_MTU, _METRIC_ADVMSS = 2, 8
_FAMILIES: dict[int, int] = {4: socket.AF_INET, 6: socket.AF_INET6}


def ensure(nl: Netlink, name: str, index: int, route: Route, *, src: IpAddress | None = None) -> bool:
    """Add a route through a link; return False if the very same was there already. Raise KernelError.

    Another route to the same destination stays: for IPv4 the new one comes before it, for IPv6 beside it.
    """
    try:
        nl.batch([add(name, index, route, src=src)])
    except KernelError as error:
        if error.errno == errno.EEXIST and is_among(route, list_routes(nl, index)):
            return False
        raise
    return True


def add(name: str, index: int, route: Route, *, src: IpAddress | None = None) -> Message:
    """Add a route through a link; refused with EEXIST if the link has one that is like it.

    `src` is an address of the host that it sends from by this route.
    """
    doing = f"failed to add route '{show(route, name)}'"
    body = _body(index, route) + (attribute(_PREFSRC, src.packed) if src else b"")
    return Message(doing, rtnetlink.RTM_NEWROUTE, rtnetlink.NLM_F_CREATE, body=body)


def list_routes(nl: Netlink, index: int) -> list[Route]:
    """List the unicast routes through a link, through any link for index 0, in every table."""
    through: list[tuple[str, Any]] = [("RTA_OIF", index)] if index else []
    found = []
    for family in _FAMILIES.values():
        fields = {"family": family, "type": _RTN_UNICAST}
        message = Message("list routes", rtnetlink.RTM_GETROUTE, fields=fields, attrs=through)
        try:
            shown = [rtnetlink.decode(message.kind, each) for each in nl.dump(message)]
            found += [_parse(each) for each in shown if not each["flags"] & _RTM_F_CLONED]
        except KernelError as error:
            if error.errno not in {errno.ENODEV, errno.ENOENT, errno.EOPNOTSUPP}:
                raise
    return found


def find_link_index(nl: Netlink, destination: IpAddress) -> int | None:
    """Give the index of the link by which the kernel would send to an address, None without a way there."""
    family = _FAMILIES[destination.version]
    head = _HEAD.pack(family, destination.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    body = head + attribute(_DST, destination.packed)
    try:
        [found] = nl.request(Message(f"find the way to {destination}", rtnetlink.RTM_GETROUTE, body=body))
    except KernelError as error:
        if error.errno in {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL}:
            return None
        raise
    return shown_number(attributes(found[_HEAD.size :]).get(_OIF, b"")) or None


def find_connected(nl: Netlink, destination: IpAddress) -> tuple[int, IpNetwork] | None:
    """Return the link and the subnet of the route to an address that needs no gateway, None without one."""
    family = _FAMILIES[destination.version]
    head = _HEAD.pack(family, destination.max_prefixlen, 0, 0, 0, 0, 0, 0, _RTM_F_FIB_MATCH)
    body = head + attribute(_DST, destination.packed)
    try:
        [found] = nl.request(Message(f"find the route to {destination}", rtnetlink.RTM_GETROUTE, body=body))
    except KernelError as error:
        if error.errno in {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL}:
            return None
        raise
    prefix = _HEAD.unpack_from(found)[1]
    shown = attributes(found[_HEAD.size :])
    if not prefix or _GATEWAY in shown or _OIF not in shown or _DST not in shown:
        return None
    subnet = ip_network((ip_address(bytes(shown[_DST])), prefix), strict=False)
    return shown_number(shown[_OIF]), subnet


def is_among(wanted: Route, found: list[Route]) -> bool:
    """Tell whether a route is there, by destination, gateway, table and, where given, priority."""
    return any(
        each.dst == wanted.dst
        and each.gw == wanted.gw
        and each.table == (wanted.table or MAIN_TABLE)
        and wanted.priority in {0, each.priority}
        for each in found
    )


def show(route: Route, name: str) -> str:
    """Give a route as a person would read it, for messages."""
    via = f" via {route.gw}" if route.gw else ""
    extra = "".join(
        f" {word} {value}" for word, value in (("mtu", route.mtu), ("advmss", route.advmss)) if value
    )
    scope, table = route.scope or 0, route.table or MAIN_TABLE
    return f"{route.dst}{via} dev {name} metric {route.priority}{extra} (Scope: {scope}, Table: {table})"


def _body(index: int, route: Route) -> bytes:
    table = route.table or MAIN_TABLE
    # The header has room for one byte of the table; RTA_TABLE tells all of it.
    head = _HEAD.pack(
        _FAMILIES[route.dst.version],
        route.dst.prefixlen,
        0,
        0,
        table if table < 256 else 0,
        _RTPROT_BOOT,
        route.scope or 0,
        _RTN_UNICAST,
        0,
    )
    parts = [head, number(_OIF, index), number(_TABLE, table)]
    if route.dst.prefixlen:
        parts.append(attribute(_DST, route.dst.network_address.packed))
    if route.gw is not None:
        parts.append(attribute(_GATEWAY, route.gw.packed))
    if route.priority:
        parts.append(number(_PRIORITY, route.priority))
    metrics = [
        number(kind, value)
        for kind, value in ((_METRIC_MTU, route.mtu), (_METRIC_ADVMSS, route.advmss))
        if value
    ]
    if metrics:
        parts.append(nest(_METRICS, *metrics))
    return b"".join(parts)


def _parse(shown: Any) -> Route:
    any_address = "0.0.0.0" if shown["family"] == socket.AF_INET else "::"  # noqa: S104 - a destination
    metrics = shown.get_attr("RTA_METRICS")
    gw: IpAddress | None = ip_address(text) if (text := shown.get_attr("RTA_GATEWAY")) else None
    return Route(
        ip_network(f"{shown.get_attr('RTA_DST') or any_address}/{shown['dst_len']}"),
        gw,
        mtu=(metrics.get_attr("RTAX_MTU") or 0) if metrics else 0,
        advmss=(metrics.get_attr("RTAX_ADVMSS") or 0) if metrics else 0,
        priority=shown.get_attr("RTA_PRIORITY") or 0,
        table=shown.get_attr("RTA_TABLE") or shown["table"],
        scope=shown["scope"],
    )
