"""Routes of a link."""

from __future__ import annotations

import errno
import socket
import struct
import sys
from ipaddress import IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import KernelError
from cni.kernel import addr, rtnetlink
from cni.kernel.attributes import attribute, attributes, each_attribute, nest, number, shown_number
from cni.kernel.rtnetlink import Message, Netlink
from cni.result import Route

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.result import IpAddress, IpNetwork

MAIN_TABLE = 254
# rtnetlink(7), struct rtmsg
_RTPROT_BOOT, _RTN_UNICAST, _RTN_LOCAL, _RTM_F_CLONED, _RTM_F_FIB_MATCH = 3, 1, 2, 0x200, 0x2000
_RTNH_F_ONLINK = 4
# A message that deletes matches a route of any origin, and with the scope "nowhere" one of any scope.
_RTPROT_ANY, _RT_SCOPE_NOWHERE = 0, 255
# family, lengths of destination and source, type of service, table, protocol, scope, type, flags
_HEAD = struct.Struct("=8BI")
_DST, _OIF, _GATEWAY, _PRIORITY, _PREFSRC, _METRICS, _MULTIPATH, _TABLE = 1, 4, 5, 6, 7, 8, 9, 15
# Addresses of the outside, to which nobody has a route of its own, by IP version.
_OUTSIDE = {4: ip_address("192.0.0.8"), 6: ip_address("2001:db8::1")}
# The metric that the kernel gives to a route without one, by IP version.
_METRIC_UNSET = {4: 0, 6: 1024}
_FLOW, _VIA, _PREF, _ENCAP_TYPE, _ENCAP, _NEXT_HOP_ID = 11, 18, 20, 21, 22, 30
# A route by the ID of a next hop object cannot have these as well, though the kernel shows them.
_OF_NEXT_HOP = (_OIF, _GATEWAY, _MULTIPATH, _VIA, _ENCAP_TYPE, _ENCAP)
# All of a route that can be added again; the others are the kernel's observations.
_LASTING = {_DST, _OIF, _GATEWAY, _PRIORITY, _PREFSRC, _METRICS, _FLOW, _VIA, _PREF, _ENCAP_TYPE, _ENCAP}
# struct rtnexthop: length, flags, hops, index
_NEXT_HOP = struct.Struct("=HBBi")
_METRIC_MTU, _METRIC_ADVMSS = 2, 8
_FAMILIES: dict[int, int] = {4: socket.AF_INET, 6: socket.AF_INET6}


class KernelRoute(NamedTuple):
    """A route with what only the kernel shows of it.

    A route through several links is one for each of them here. `src` is the address that the host sends from.
    `protocol` is the route's origin: RTPROT_KERNEL (2) for a route that comes with an address. `encoded` is
    all of it, for `again` and `remove_exactly`; b"" for one of IPv4 through several links.
    """

    route: Route
    link_index: int
    src: IpAddress | None
    protocol: int
    encoded: bytes


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


def remove(nl: Netlink, name: str, index: int, route: Route) -> bool:
    """Remove a route through a link; return False if the link has none such, or there is no link.

    What `route` leaves open (gateway, priority, scope) matches any; of several routes the kernel's first is
    removed.
    """
    doing = f"could not remove route '{show(route, name)}'"
    body = _body(index, route, protocol=_RTPROT_ANY, default_scope=_RT_SCOPE_NOWHERE)
    try:
        nl.batch([Message(doing, rtnetlink.RTM_DELROUTE, body=body)])
    except KernelError as error:
        if error.errno in {errno.ESRCH, errno.ENODEV, errno.EOPNOTSUPP}:
            return False
        raise
    return True


def again(name: str, encoded: bytes, table: int = 0) -> Message:
    """Add a route as `list_all` has shown it, with all that it had, or the same in another table.

    Refused with EEXIST if it is there.
    """
    body = _in_table(encoded, table) if table else encoded
    doing = f"failed to add {_show_encoded(body, name)}"
    return Message(doing, rtnetlink.RTM_NEWROUTE, rtnetlink.NLM_F_CREATE, body=body)


def remove_exactly(name: str, encoded: bytes) -> Message:
    """Remove the very route that `list_all` has shown; refused with ESRCH if it is gone."""
    return Message(f"could not remove {_show_encoded(encoded, name)}", rtnetlink.RTM_DELROUTE, body=encoded)


def decode(encoded: bytes) -> KernelRoute | None:
    """Return the route that `again` would add, None for bytes that are none: for input from a file."""
    try:
        return next(_parse(encoded), None)
    except (struct.error, ValueError):
        return None


def list_routes(nl: Netlink, index: int) -> list[Route]:
    """List the unicast routes through a link, through any link for index 0, in every table."""
    return [each.route for each in list_all(nl, index)]


def list_all(nl: Netlink, index: int) -> list[KernelRoute]:
    """List as `list_routes` does, with what only the kernel shows."""
    through = number(_OIF, index) if index else b""
    found = []
    for family in _FAMILIES.values():
        body = _HEAD.pack(family, 0, 0, 0, 0, 0, 0, _RTN_UNICAST, 0) + through
        try:
            shown = nl.dump(Message("list routes", rtnetlink.RTM_GETROUTE, body=body))
        except KernelError as error:
            if error.errno not in {errno.ENODEV, errno.ENOENT, errno.EOPNOTSUPP}:
                raise
            continue
        found += [one for each in shown for one in _parse(each) if index in {0, one.link_index}]
    return found


def find_link_index(nl: Netlink, destination: IpAddress) -> int | None:
    """Return the index of the link by which the kernel sends to an address, None if it has no route."""
    found = _look_up(nl, destination)
    return shown_number(attributes(found[_HEAD.size :]).get(_OIF, b"")) or None if found else None


def is_local(nl: Netlink, address: IpAddress) -> bool:
    """Return whether an address is one of the namespace's own; one look-up, however many there are."""
    # The local route of an IPv6 address may come a little later than the address.
    if isinstance(address, IPv6Address):
        return addr.has_ipv6(nl, address)
    return _is_local(_look_up(nl, address))


def is_received(nl: Netlink, address: IPv6Address, index: int) -> bool:
    """Return whether the kernel receives packets to an IPv6 address of a link.

    It makes the route for that some time after the address. In a VRF that is a route of the VRF's table.
    """
    return _is_local(_look_up(nl, address, index=index))


def _is_local(kernel_route: bytes | None) -> bool:
    return kernel_route is not None and _HEAD.unpack_from(kernel_route)[7] == _RTN_LOCAL


class Default(NamedTuple):
    """A default route of the main table, as the kernel shows it. `metric` is 1024 for IPv6 unless set."""

    version: int
    metric: int
    protocol: int
    shown: bytes

    @property
    def is_unranked(self) -> bool:
        """Whether a program has added it without a metric."""
        return self.protocol == _RTPROT_BOOT and self.metric == _METRIC_UNSET[self.version]


def find_default_metric(nl: Netlink, version: int) -> int | None:
    """Return the metric of the default route that the kernel takes, None if it has none. It lists nothing."""
    found = _look_up(nl, _OUTSIDE[version], _RTM_F_FIB_MATCH)
    if not found or _HEAD.unpack_from(found)[1]:
        return None
    return shown_number(attributes(found[_HEAD.size :]).get(_PRIORITY, b""))


def list_defaults(nl: Netlink) -> list[Default]:
    """List the default routes of the main table, IPv4 first."""
    found = []
    for version, family in _FAMILIES.items():
        message = Message("list routes", rtnetlink.RTM_GETROUTE, body=_HEAD.pack(family, *[0] * 8))
        for each in filter(_is_default, nl.dump(message)):
            metric = shown_number(attributes(each[_HEAD.size :]).get(_PRIORITY, b""))
            found.append(Default(version, metric, _HEAD.unpack_from(each)[5], bytes(each)))
    return found


def change_metric(nl: Netlink, default: Default, metric: int) -> None:
    """Set the metric of a default route: add it once more, then remove the first one.

    Raise KernelError, also if one like it has that metric; the route then stays as it is.
    """
    shown = attributes(default.shown[_HEAD.size :], _LASTING | {_MULTIPATH, _TABLE, _NEXT_HOP_ID})
    left_out = {_PRIORITY, *(_OF_NEXT_HOP if _NEXT_HOP_ID in shown else ())}
    parts = b"".join(
        attribute(kind, _accepted_hops(value) if kind == _MULTIPATH else bytes(value))
        for kind, value in shown.items()
        if kind not in left_out
    )
    # The flags also show the state of the link.
    *fields, flags = _HEAD.unpack_from(default.shown)
    head = _HEAD.pack(*fields, flags & _RTNH_F_ONLINK)
    new, old = (head + parts + number(_PRIORITY, each) for each in (metric, default.metric))
    doing = f"change the metric of the default route from {default.metric} to {metric}"
    # Not in one batch: the kernel goes on after a refusal.
    nl.batch([Message(doing, rtnetlink.RTM_NEWROUTE, rtnetlink.NLM_F_CREATE, body=new)])
    nl.batch([Message(doing, rtnetlink.RTM_DELROUTE, body=old)])


def _accepted_hops(shown: bytes) -> bytes:
    """Return next hops without the flags that only the kernel sets, as that of a link without a carrier."""
    hops, place = bytearray(shown), 0
    while place + _NEXT_HOP.size <= len(hops):
        length, flags, weight, index = _NEXT_HOP.unpack_from(hops, place)
        _NEXT_HOP.pack_into(hops, place, length, flags & _RTNH_F_ONLINK, weight, index)
        place += max((length + 3) & ~3, _NEXT_HOP.size)
    return bytes(hops)


def find_default_link_index(nl: Netlink) -> int | None:
    """Return the index of the link of the default route: IPv4 before IPv6, then the best metric.

    None if the main table has no default route.
    """
    for family in _FAMILIES.values():
        message = Message("list routes", rtnetlink.RTM_GETROUTE, body=_HEAD.pack(family, *[0] * 8))
        routes = [each for each in nl.dump(message) if _is_default(each)]
        links = [_metric_and_link(attributes(each[_HEAD.size :])) for each in routes]
        if usable := [each for each in links if each[1]]:
            return min(usable)[1]
    return None


def _is_default(shown: bytes) -> bool:
    _, length, _, _, _, _, _, kind, _ = _HEAD.unpack_from(shown)
    table = attributes(shown[_HEAD.size :], {_TABLE}).get(_TABLE, b"")
    return not length and kind == _RTN_UNICAST and shown_number(table) == MAIN_TABLE


def _metric_and_link(shown: dict[int, bytes]) -> tuple[int, int]:
    """Return the metric of a route, and the index of its link: of several links the first."""
    if _MULTIPATH in shown:
        index = _NEXT_HOP.unpack_from(shown[_MULTIPATH])[3]
    else:
        index = shown_number(shown.get(_OIF, b""))
    return shown_number(shown.get(_PRIORITY, b"")), index


def find_connected(nl: Netlink, destination: IpAddress) -> tuple[int, IpNetwork] | None:
    """Return the link and the subnet of the route to an address that needs no gateway, None without one."""
    found = _look_up(nl, destination, _RTM_F_FIB_MATCH)
    if not found:
        return None
    prefix = _HEAD.unpack_from(found)[1]
    shown = attributes(found[_HEAD.size :])
    if not prefix or _GATEWAY in shown or _OIF not in shown or _DST not in shown:
        return None
    subnet = ip_network((ip_address(bytes(shown[_DST])), prefix), strict=False)
    return shown_number(shown[_OIF]), subnet


def _look_up(nl: Netlink, destination: IpAddress, flags: int = 0, index: int = 0) -> bytes | None:
    """Return the route that the kernel takes to an address, None if it has none. Raise KernelError.

    With `index` only a route by this link.
    """
    head = _HEAD.pack(_FAMILIES[destination.version], destination.max_prefixlen, 0, 0, 0, 0, 0, 0, flags)
    body = head + attribute(_DST, destination.packed) + (number(_OIF, index) if index else b"")
    try:
        [found] = nl.request(Message(f"find the route to {destination}", rtnetlink.RTM_GETROUTE, body=body))
    except KernelError as error:
        if error.errno in {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL}:
            return None
        raise
    return found


def is_among(wanted: Route, routes: list[Route]) -> bool:
    """Return whether a route is in a list, by destination, gateway, table and, if given, priority."""
    return any(
        each.dst == wanted.dst
        and each.gw == wanted.gw
        and each.table == (wanted.table or MAIN_TABLE)
        and wanted.priority in {0, each.priority}
        for each in routes
    )


def show(route: Route, name: str) -> str:
    """Return a route as a person reads it, for messages."""
    via = f" via {route.gw}" if route.gw else ""
    extra = "".join(
        f" {word} {value}" for word, value in (("mtu", route.mtu), ("advmss", route.advmss)) if value
    )
    scope, table = route.scope or 0, route.table or MAIN_TABLE
    return f"{route.dst}{via} dev {name} metric {route.priority}{extra} (Scope: {scope}, Table: {table})"


def _body(index: int, route: Route, *, protocol: int = _RTPROT_BOOT, default_scope: int = 0) -> bytes:
    table = route.table or MAIN_TABLE
    # The header has room for one byte of the table; RTA_TABLE has all of it.
    head = _HEAD.pack(
        _FAMILIES[route.dst.version],
        route.dst.prefixlen,
        0,
        0,
        table if table < 256 else 0,
        protocol,
        default_scope if route.scope is None else route.scope,
        _RTN_UNICAST,
        _RTNH_F_ONLINK if route.is_onlink else 0,
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


def _parse(shown: bytes) -> Iterator[KernelRoute]:
    """Yield a unicast route for each link that it leads through."""
    family, length, _, tos, short, protocol, scope, kind, flags = _HEAD.unpack_from(shown)
    if kind != _RTN_UNICAST or flags & _RTM_F_CLONED:
        return
    parts = attributes(shown[_HEAD.size :])
    any_address = bytes(4 if family == socket.AF_INET else 16)
    metrics = attributes(parts.get(_METRICS, b""))
    table = shown_number(parts.get(_TABLE, b"")) or short
    route = Route(
        ip_network((parts.get(_DST, any_address), length)),
        mtu=shown_number(metrics.get(_METRIC_MTU, b"")),
        advmss=shown_number(metrics.get(_METRIC_ADVMSS, b"")),
        priority=shown_number(parts.get(_PRIORITY, b"")),
        table=table,
        scope=scope,
    )
    src = ip_address(parts[_PREFSRC]) if _PREFSRC in parts else None
    own = {each: value for each, value in parts.items() if each in _LASTING}
    # The kernel joins routes of IPv6 to one destination with different gateways or links.
    several = [(flags, own | hop) for flags, hop in _hops(parts.get(_MULTIPATH, b""))]
    for hop_flags, hop in several or [(flags, own)]:
        gateway = ip_address(hop[_GATEWAY]) if _GATEWAY in hop else None
        head = _HEAD.pack(family, length, 0, tos, short, protocol, scope, kind, hop_flags & _RTNH_F_ONLINK)
        encoded = b"".join([head, number(_TABLE, table), *(attribute(*each) for each in hop.items())])
        is_whole = not several or family == socket.AF_INET6
        index = shown_number(hop.get(_OIF, b""))
        yield KernelRoute(route._replace(gw=gateway), index, src, protocol, encoded if is_whole else b"")


def _hops(data: bytes) -> Iterator[tuple[int, dict[int, bytes]]]:
    """Yield flags and attributes of each link of a route through several."""
    while len(data) >= _NEXT_HOP.size:
        length, flags, _, index = _NEXT_HOP.unpack_from(data)
        if length < _NEXT_HOP.size:
            return
        own = attributes(data[_NEXT_HOP.size : length], _LASTING)
        yield flags, own | {_OIF: index.to_bytes(4, sys.byteorder)}
        data = data[(length + 3) & ~3 :]


def _in_table(encoded: bytes, table: int) -> bytes:
    head = bytearray(encoded[: _HEAD.size])
    head[4] = table if table < 256 else 0
    others = [
        attribute(kind, value) for kind, value in each_attribute(encoded[_HEAD.size :]) if kind != _TABLE
    ]
    return b"".join([head, number(_TABLE, table), *others])


def _show_encoded(encoded: bytes, name: str) -> str:
    return f"route '{show(next(_parse(encoded)).route, name)}'"
