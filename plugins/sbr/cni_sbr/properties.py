"""The properties of an attachment: one list for CHECK and repair."""

from __future__ import annotations

from functools import partial
from ipaddress import ip_network
from typing import TYPE_CHECKING

from cni.kernel import netns, route, rule
from cni.kernel.rtnetlink import Netlink
from cni.operations.properties import Property
from cni_sbr import tables
from cni_sbr.plan import Source, plan_hints, plan_routes, required_ips

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.request import Request
    from cni.result import Route
    from cni.undo import Undo
    from cni_sbr.conf import SbrConf


def list_properties(conf: SbrConf, request: Request) -> Iterator[Property]:
    """Yield the rule of each address, and the routes that its table must have.

    Routes that the plugin has copied are not compared: nobody knows any more which these were.
    """
    ips = required_ips(request)
    with netns.open_netns(request.netns) as ns, Netlink(ns) as nl:
        own = tables.required_link(nl, request)
        saved = tables.load(conf, request, ns)
        routes = [each.route._replace(src=each.src) for each in route.list_all(nl, own.index)]
        for ip in ips:
            network = ip_network(ip.address.ip)
            leads_to = [each.table for each in rule.list_rules(nl, network.version) if each.src == network]
            # An attachment of the Go plugin has no record; any table may be its own.
            table = conf.table or saved.get(str(network)) or next(iter(leads_to), 0)
            fix = partial(_add_rule, request, Source(ip, table)) if table else None
            message = f"no rule leads packets from {network} to {f'table {table}' if table else 'a table'}"
            yield Property(f"rule from {network}", table in leads_to, wanted=True, message=message, fix=fix)
            if table:
                yield from _of_routes(request, plan_routes(conf, Source(ip, table), ()), routes)
        yield from _of_routes(request, plan_hints(conf, ips), routes)


def _of_routes(request: Request, wanted: list[Route], routes: list[Route]) -> Iterator[Property]:
    for each in wanted:
        place = f"table {each.table}" if each.table else "the main table"
        message = f"Expected Route {{Dst: {each.dst}, GW: {each.gw}}} not found in {place}"
        is_there = any(
            (one.dst, one.gw, one.table) == (each.dst, each.gw, each.table or route.MAIN_TABLE)
            for one in routes
        )
        yield Property("", is_there, wanted=True, message=message, fix=partial(_add_route, request, each))


def _add_rule(request: Request, source: Source, _undo: Undo) -> str:
    with netns.open_netns(request.netns) as ns, tables.opened(ns) as nl:
        rule.ensure(nl, tables.rule_of(source))
    return f"added rule {tables.rule_of(source)}"


def _add_route(request: Request, wanted: Route, _undo: Undo) -> str:
    with netns.open_netns(request.netns) as ns, tables.opened(ns) as nl:
        own = tables.required_link(nl, request)
        route.ensure(nl, own.name, own.index, wanted, src=wanted.src)
    return f"added the route to {wanted.dst} by {request.ifname}"
