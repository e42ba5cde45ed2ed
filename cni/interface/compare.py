"""The properties that all interface plugins have in common: pair, addresses, routes, forwarding.

Attachments that the Go plugins made must pass: what those do not make, or only some releases make, is not
compared. Every look-up is made when the next property is asked for, see `cni.operations.properties`.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError

from cni import delegate
from cni.convert import RouteJson
from cni.errors import CniError, Code
from cni.interface import layer3
from cni.interface.pair import Sides, open_sides
from cni.interface.plan import FORWARDING, MAIN_TABLE, complete_routes, recorded_host_end, versions_of
from cni.kernel import addr, link, netns, route, sysctl, veth
from cni.operations import properties
from cni.operations.properties import Property
from cni.request import Verb
from cni.versions import FIRST_WITH_DETAILS, at_least

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cni.conf import NetConf
    from cni.interface.plan import Layer3, PairPlan
    from cni.kernel.link import Link
    from cni.kernel.rtnetlink import Message, Netlink
    from cni.operations.properties import Fix
    from cni.operations.repair import Repaired
    from cni.request import Request
    from cni.result import Interface, Ip, Result, Route
    from cni.undo import Undo

# The host usually has a link "eth0", too.
_INSIDE = " of the container"


class Attachment(NamedTuple):
    """An attachment that CHECK or repair is about.

    `recorded` is the container's end in the result of ADD, and `ips` are that end's addresses there.
    """

    plan: PairPlan
    result: Result
    recorded: Interface
    ips: tuple[Ip, ...]
    sides: Sides

    def find_pair(self) -> tuple[Link | None, Link | None]:
        """Return the container's link and its host end, None for each that does not exist.

        The host end is the link of the host that has the attachment's name, or the name in the result, and
        whose other end is the container's link as the host's side reports it. The container chooses what its
        own link reports.
        """
        container = link.find(self.sides.inside, self.plan.ifname)
        recorded = recorded_host_end(self.result, self.recorded)
        names = [self.plan.host_name]
        if recorded and recorded.name not in names:
            names.append(recorded.name)
        return container, veth.find(self.sides.host, names, self.sides.ns).end_of(container)

    def require_pair(self) -> None:
        """Raise CniError 104 if the pair is gone: only an ADD creates it."""
        if None in self.find_pair():
            raise CniError(
                Code.MISMATCH,
                f"the veth pair of {self.plan.ifname} in {self.plan.netns} is gone and cannot be repaired",
                "attach the container again: DEL, then ADD",
            )

    def on_host(self, name: str) -> Interface | None:
        """Return a link of the host in the result, None if that does not name it."""
        return next((each for each in self.result.interfaces if each.name == name and not each.sandbox), None)

    def host_mac(self, name: str) -> str | None:
        """Return the MAC address of a link of the host in the result, None if that does not name it."""
        shown = self.on_host(name)
        return shown.mac if shown else None


@contextmanager
def open_attachment(request: Request, plan: PairPlan) -> Iterator[Attachment]:
    """Open an attachment. Raise CniError 104 if the result is of another one, 7 without a result, 8."""
    result = request.required_prev_result()
    with open_sides(plan.netns) as sides:
        recorded = _own_interface(plan, result)
        place = result.interfaces.index(recorded)
        # Addresses that name no link belong to the container's link as well.
        ips = tuple(ip for ip in result.ips if ip.interface in {None, place})
        yield Attachment(plan, result, recorded, ips, sides)


def _own_interface(plan: PairPlan, result: Result) -> Interface:
    named = [each for each in result.interfaces if each.name == plan.ifname and each.sandbox]
    if not named:
        raise CniError(
            Code.MISMATCH,
            f"Interface name {plan.ifname} not found",
            "prevResult has no link of the container with this name",
        )
    for each in named:
        if each.sandbox == plan.netns or _is_same_netns(each.sandbox, plan.netns):
            return each
    raise CniError(
        Code.MISMATCH,
        f"Sandbox in prevResult {named[0].sandbox} doesn't match configured netns: {plan.netns}",
    )


def _is_same_netns(one: str, other: str) -> bool:
    """Return whether two paths are one namespace, as /var/run/netns/x and /run/netns/x may be."""
    if netns.is_gone(one):
        return False
    with netns.open_netns(one) as first, netns.open_netns(other) as second:
        return first.inode == second.inode


def send(nl: Netlink, done: str, *messages: Message) -> Fix:
    """Return a fix that sends messages, and then reports `done`."""

    def fix(_undo: Undo) -> str:
        nl.batch(messages)
        return done

    return fix


def holds(
    condition: object, message: str = "", fix: Fix | None = None, impairment: str = "", name: str = ""
) -> Property:
    """Return the property that a condition is true."""
    return Property(name, bool(condition), wanted=True, message=message, fix=fix, impairment=impairment)


def of_mac(nl: Netlink, end: Link, wanted: str, message: str, where: str = "") -> Property:
    """Return the property that a link has a MAC address; "" accepts every address."""
    fix = send(
        nl,
        f"{end.name}{where}: set its MAC address to {wanted}",
        link.set_mac(end.name, end.index, wanted or end.mac),
    )
    return Property(f"MAC address of {end.name}", end.mac, wanted or end.mac, message, fix)


def of_state(  # noqa: PLR0913 - the sentences of CHECK, repair and STATUS
    nl: Netlink, end: Link, message: str, *, name: str = "", impairment: str = "", where: str = ""
) -> Property:
    """Return the property that a link is switched on."""
    up = link.set_flags(end.name, end.index, on=link.IFF_UP)
    return holds(end.is_up, message, send(nl, f"{end.name}{where}: switched it on", up), impairment, name)


def of_container(of: Attachment, container: Link | None, kind: str = veth.KIND) -> Iterator[Property]:
    """Yield the properties of the container's link, which is of a kind of the kernel's.

    Not the MTU: a later plugin of the chain may change it, and the Go suite's tuning leaves the result as it
    was, also in versions whose results have the MTU of interfaces.
    """
    name = of.plan.ifname
    yield holds(container is not None, f"Interface {name} does not exist in {of.plan.netns}")
    if container is None:
        return
    message = f"Container interface {name} is not of type {kind}"
    yield Property("", container.kind, kind, message)
    mac = of.recorded.mac
    yield of_mac(
        of.sides.inside,
        container,
        mac,
        f"Interface {name} Mac {container.mac} doesn't match container Mac: {mac}",
        _INSIDE,
    )
    if of.plan.is_up:
        yield of_state(of.sides.inside, container, f"Interface {name} is down", where=_INSIDE)


def of_host_end(of: Attachment, container: Link, host: Link | None) -> Iterator[Property]:
    """Yield the properties of the host end but for its state."""
    plan, nl = of.plan, of.sides.host
    renamed = None if host else veth.find_by_index(nl, container, of.sides.ns)
    if host is None and renamed is None:
        yield holds(None, f"the host end of interface {plan.ifname} does not exist on this host")
        return
    name = (host or renamed or container).name
    message = f"Interface name {name}, the host end of {plan.ifname}, not found in prevResult"
    mac = of.host_mac(name)
    yield holds(renamed is None and mac is not None, message)
    if host is None:
        return
    if mac is not None:
        yield of_mac(nl, host, mac, f"Interface {name} Mac {host.mac} doesn't match host Mac: {mac}")
    # A later plugin of the chain may have changed the MTU of both ends. A result of 1.1.0 shows that.
    shown = of.on_host(name)
    mtu = (shown.mtu if shown else 0) or (host.mtu if host.mtu == container.mtu else plan.mtu or host.mtu)
    fix = send(nl, f"{name}: set its MTU to {mtu}", link.set_mtu(name, host.index, mtu))
    yield Property(f"MTU of {name}", host.mtu, mtu, f"Interface {name} has MTU {host.mtu}, not {mtu}", fix)
    if name == plan.host_name:
        yield from _of_our_host_end(of, host)


def _of_our_host_end(of: Attachment, host: Link) -> Iterator[Property]:
    """Yield the properties that the Go plugins, or some of their releases, do not set."""
    fix = send(
        of.sides.host, f"{host.name}: set its alias", link.set_alias(host.name, host.index, of.plan.alias)
    )
    message = f'Interface {host.name} has alias "{host.alias}", by which its owner is not known'
    yield Property("alias", host.alias, of.plan.alias, message, fix)
    key = f"net/ipv6/conf/{host.name}/accept_ra"
    message = f"sysctl {key} is not 0: the host may take a container for its router"
    yield Property(key, sysctl.read(key) or "0", "0", message, partial(_set, key, "0"))


def _set(key: str, value: str, _undo: Undo) -> str:
    sysctl.ensure(key, value)
    return f"set sysctl {key} to {value}"


def of_host_state(nl: Netlink, host: Link) -> Property:
    """Return the property that a host end is switched on."""
    message, impairment = f"Interface {host.name} is down", "links of containers are down"
    return of_state(nl, host, message, name=host.name, impairment=impairment)


def of_traffic(host: Link, *others: Link) -> Iterator[Property]:
    """Yield the property that a host end carries traffic, if it and the links around it are switched on."""
    if host.is_up and all(each.is_up for each in others):
        message = f"Interface {host.name} carries no traffic, it is in state {host.operstate}"
        yield Property("", host.operstate, "up", message)


def of_layer3(
    of: Attachment, plan: Layer3, promised: tuple[Route, ...], container: Link, *, compare_metrics: bool
) -> Iterator[Property]:
    """Yield addresses, the state of IPv6, and routes of the container: those of `plan`, then `promised`.

    `promised` are the routes of the result, where a route may lack the gateway that ADD has chosen.
    `compare_metrics` is for attachments of this suite: the Go plugins do not set the metrics of routes.
    """
    name, inside = container.name, of.sides.inside
    yield from _of_addresses(plan, inside, container, partial(_restore_address, of.sides, plan, container))
    if 6 in versions_of(plan.ips):
        key = _disable_ipv6(name)
        with of.sides.ns.entered():
            is_disabled = sysctl.read(key) == "1"
        message = f"IPv6 is switched off in {of.sides.ns.path}: sysctl {key} is 1"
        yield holds(not is_disabled, message, partial(_enable_ipv6, of.sides, name))
    # As the Go plugins do: a route may go through any link.
    routes = route.list_routes(inside, 0)
    chosen = complete_routes(promised, plan.ips, prefix_route=plan.prefix_route)
    for wanted, complete in zip((*plan.routes, *promised), (*plan.routes, *chosen), strict=True):
        fix = partial(_restore_route, inside, container, complete, _INSIDE)
        present = [each for each in routes if not compare_metrics or _is_ranked(each, wanted)]
        yield _of_route(wanted, present, fix)
        alike = [each for each in present if _is_as_wanted(each, wanted)]
        if alike and compare_metrics:
            message = (
                f"Route to {wanted.dst} has mtu {alike[0].mtu} and advmss {alike[0].advmss}, "
                f"not {wanted.mtu} and {wanted.advmss}"
            )
            yield holds(any(_has_metrics(each, wanted) for each in alike), message)


def of_host_layer3(of: Attachment, plan: Layer3, host: Link) -> Iterator[Property]:
    """Yield addresses and routes of the host end."""
    nl = of.sides.host

    def restore(ip: Ip, _undo: Undo) -> str:
        layer3.add(plan._replace(ips=(ip,), routes=()), nl, host)
        return f"{host.name}: added {ip.address}"

    yield from _of_addresses(plan, nl, host, restore)
    routes = route.list_routes(nl, host.index)
    for wanted in plan.routes:
        yield _of_route(wanted, routes, partial(_restore_route, nl, host, wanted, ""))


def _of_addresses(
    plan: Layer3, nl: Netlink, holder: Link, restore: Callable[[Ip, Undo], str]
) -> Iterator[Property]:
    present = {each.address: each for each in addr.list_addrs(nl, holder.index)}
    for ip in plan.ips:
        message = f"Failed to match addr {ip.address} on interface {holder.name}"
        yield holds(ip.address in present, message, partial(restore, ip))
        if ip.address in present:
            message = f"Address {ip.address} of interface {holder.name} is in use by another machine"
            yield holds(not present[ip.address].is_duplicate, message)


def _disable_ipv6(name: str) -> str:
    return f"net/ipv6/conf/{name}/disable_ipv6"


def _enable_ipv6(sides: Sides, name: str, _undo: Undo) -> str:
    with sides.ns.entered():
        sysctl.ensure(_disable_ipv6(name), "0")
    return f"{name}{_INSIDE}: switched IPv6 on"


def _restore_address(sides: Sides, plan: Layer3, container: Link, ip: Ip, undo: Undo) -> str:
    if ip.address.version == 6:
        _enable_ipv6(sides, container.name, undo)
    layer3.add(plan._replace(ips=(ip,), routes=(), dad=False), sides.inside, container)
    return f"{container.name}{_INSIDE}: added {ip.address}"


def _of_route(wanted: Route, routes: list[Route], fix: Fix) -> Property:
    message = f"Expected Route {{Dst: {wanted.dst}, GW: {wanted.gw}}} not found in routing table"
    return holds(any(_is_as_wanted(each, wanted) for each in routes), message, fix)


def _restore_route(nl: Netlink, holder: Link, complete: Route, where: str, _undo: Undo) -> str:
    route.ensure(nl, holder.name, holder.index, complete, src=complete.src)
    return f"{holder.name}{where}: added the route to {complete.dst}"


def _has_metrics(present: Route, wanted: Route) -> bool:
    return wanted.mtu in {0, present.mtu} and wanted.advmss in {0, present.advmss}


def _is_ranked(present: Route, wanted: Route) -> bool:
    """Return whether the metric of a route is right; outside of the main table each is.

    A route that is wanted without a metric may have got one.
    """
    return wanted.priority in {0, present.priority} or present.table not in {None, wanted.table, MAIN_TABLE}


def _is_as_wanted(present: Route, wanted: Route) -> bool:
    """Compare as the Go plugins do: of a default route only the destination counts."""
    if present.dst != wanted.dst or wanted.table not in {None, 0, present.table}:
        return False
    return wanted.dst.prefixlen == 0 or wanted.gw in {None, present.gw}


def promised_routes(conf: NetConf, result: Result) -> tuple[Route, ...]:
    """Return the routes of a result as ADD made them.

    Results older than 1.1.0 cannot show table, metric, MTU and the like. These are taken from the routes in
    the configuration of IPAM, which host-local and other IPAM plugins copy into their results.
    """
    if at_least(conf.cni_version, FIRST_WITH_DETAILS):
        return result.routes
    of_ipam = {key.lower(): value for key, value in (conf.ipam.model_extra or {}).items()}
    listed = of_ipam.get("routes")
    configured = []
    for each in listed if isinstance(listed, list) else ():
        # The configuration is another plugin's, which may have routes of another kind.
        with suppress(ValidationError):
            configured.append(RouteJson.model_validate(each).to_route())
    return tuple(
        next((each._replace(gw=wanted.gw) for each in configured if _is_same_route(each, wanted)), wanted)
        for wanted in result.routes
    )


def _is_same_route(configured: Route, shown: Route) -> bool:
    return configured.dst == shown.dst and configured.gw in {None, shown.gw}


def of_forwarding(versions: Iterable[int]) -> Iterator[Property]:
    """Yield the property that the host forwards, for each IP version."""
    for version in sorted(set(versions)):
        key = FORWARDING[version]
        message = f"this host does not forward IPv{version}: sysctl {key} is not 1"
        yield Property("", sysctl.read(key), "1", message, partial(_set, key, "1"), impairment=message)


def check_all(conf: NetConf, request: Request, compared: Iterable[Property]) -> None:
    """Raise CniError 104 if a property differs, or what CHECK of the IPAM plugin raises."""
    ask = partial(delegate.check, conf.ipam.type, request) if conf.ipam.type else None
    properties.check(compared, ask, brief=request.verb is Verb.CHECK_ANY)


def repair_all(conf: NetConf, request: Request, compared: Iterable[Property]) -> Repaired:
    """Restore the properties that differ, then let the IPAM plugin repair its part."""
    done = properties.repair(compared)
    if conf.ipam.type:
        done.extend(delegate.repair(conf.ipam.type, request))
    return done
