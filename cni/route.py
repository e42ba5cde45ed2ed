"""Routes of a link."""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

from cni import netlink
from cni.errors import KernelError
from cni.netlink import Message, Netlink
from cni.result import Route

if TYPE_CHECKING:
    from cni.result import IpAddress

MAIN_TABLE = 254
# rtnetlink(7), struct rtmsg
_RTPROT_BOOT, _RTN_UNICAST, _RTM_F_CLONED = 3, 1, 0x200


def ensure(nl: Netlink, name: str, index: int, route: Route) -> bool:
    """Add a route through a link; False if the very same was there already. Raises KernelError.

    Another route to the same destination stays: for IPv4 the new one comes before it, for IPv6 beside it.
    """
    doing = f"failed to add route '{show(route, name)}'"
    try:
        nl.batch(
            [Message(doing, netlink.RTM_NEWROUTE, netlink.NLM_F_CREATE, _fields(route), _attrs(index, route))]
        )
    except KernelError as error:
        if error.errno == errno.EEXIST and is_among(route, list_routes(nl, index)):
            return False
        raise
    return True


def list_routes(nl: Netlink, index: int) -> list[Route]:
    """List the unicast routes through a link, through any link for index 0, in every table."""
    through: list[tuple[str, Any]] = [("RTA_OIF", index)] if index else []
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        fields = {"family": family, "type": _RTN_UNICAST}
        message = Message("list routes", netlink.RTM_GETROUTE, fields=fields, attrs=through)
        try:
            found += [_parse(each) for each in nl.dump(message) if not each["flags"] & _RTM_F_CLONED]
        except KernelError as error:
            if error.errno not in {errno.ENODEV, errno.ENOENT, errno.EOPNOTSUPP}:
                raise
    return found


def find_link_index(nl: Netlink, destination: IpAddress) -> int | None:
    """Give the index of the link by which the kernel would send to an address, None without a way there."""
    family = socket.AF_INET if destination.version == 4 else socket.AF_INET6
    fields: dict[str, int] = {"family": family, "dst_len": destination.max_prefixlen}
    attrs = [("RTA_DST", str(destination))]
    try:
        found = nl.request(
            Message(f"find the way to {destination}", netlink.RTM_GETROUTE, fields=fields, attrs=attrs)
        )
    except KernelError as error:
        if error.errno in {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL}:
            return None
        raise
    index: int | None = found.get_attr("RTA_OIF")
    return index


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


def _fields(route: Route) -> dict[str, int]:
    table = route.table or MAIN_TABLE
    return {
        "family": socket.AF_INET if route.dst.version == 4 else socket.AF_INET6,
        "dst_len": route.dst.prefixlen,
        # The header has room for one byte; RTA_TABLE tells all of it.
        "table": table if table < 256 else 0,
        "proto": _RTPROT_BOOT,
        "scope": route.scope or 0,
        "type": _RTN_UNICAST,
    }


def _attrs(index: int, route: Route) -> list[tuple[str, Any]]:
    attrs: list[tuple[str, Any]] = [("RTA_OIF", index), ("RTA_TABLE", route.table or MAIN_TABLE)]
    if route.dst.prefixlen:
        attrs.append(("RTA_DST", str(route.dst.network_address)))
    if route.gw is not None:
        attrs.append(("RTA_GATEWAY", str(route.gw)))
    if route.priority:
        attrs.append(("RTA_PRIORITY", route.priority))
    metrics = [
        (name, value) for name, value in (("RTAX_MTU", route.mtu), ("RTAX_ADVMSS", route.advmss)) if value
    ]
    if metrics:
        attrs.append(("RTA_METRICS", {"attrs": metrics}))
    return attrs


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
