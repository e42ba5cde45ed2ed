"""The properties of an attachment: one list for CHECK and repair."""

from __future__ import annotations

from functools import partial
from ipaddress import ip_network
from typing import TYPE_CHECKING

from cni.kernel import netns, route, rule
from cni.kernel.rtnetlink import Netlink
from cni.operations.properties import Property
from cni_sbr import record, tables
from cni_sbr.plan import Source, plan_copies, plan_default, plan_hints, required_ips

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.kernel.rtnetlink import Message
    from cni.request import Request
    from cni.result import Route
    from cni.undo import Undo
    from cni_sbr.conf import SbrConf


def list_properties(conf: SbrConf, request: Request) -> Iterator[Property]:
    """Yield the rule of each address, and the routes that its table must have.

    For an attachment of the Go plugin nobody knows which routes it has moved.
    """
    ips = required_ips(request)
    with netns.open_netns(request.netns) as ns, Netlink(ns) as nl:
        own = tables.required_link(nl, request)
        change = record.load(record.key_of(conf.name, request.attachment), ns)
        saved = change.rules if change else {}
        moved = change.list_moved() if change and change.index == own.index else []
        routes = [each.route for each in route.list_all(nl, own.index)]
        for ip in ips:
            network = ip_network(ip.address.ip)
            leads_to = [each.table for each in rule.list_rules(nl, network.version) if each.src == network]
            # An attachment of the Go plugin has no record; any table may be its own.
            table = conf.table or saved.get(str(network)) or next(iter(leads_to), 0)
            source = Source(ip, table)
            fix = partial(_add_rule, request, source) if table else None
            message = f"no rule leads packets from {network} to {f'table {table}' if table else 'a table'}"
            yield Property(f"rule from {network}", table in leads_to, wanted=True, message=message, fix=fix)
            if not table:
                continue
            for copied in plan_copies(conf, source, moved):
                addition = route.again(own.name, copied.encoded, table)
                yield _of_route(request, copied.route._replace(table=table), addition, routes)
            for default in plan_default(conf, source):
                yield _of_route(request, default, route.add(own.name, own.index, default), routes)
        for hint in plan_hints(conf, ips):
            addition = route.add(own.name, own.index, hint, src=hint.src)
            yield _of_route(request, hint, addition, routes)


def _of_route(request: Request, wanted: Route, addition: Message, routes: list[Route]) -> Property:
    """Return the property that a route is among those of the interface."""
    place = f"table {wanted.table}" if wanted.table else "the main table"
    message = f"Expected Route {{Dst: {wanted.dst}, GW: {wanted.gw}}} not found in {place}"
    is_there = any(
        (each.dst, each.gw, each.table) == (wanted.dst, wanted.gw, wanted.table or route.MAIN_TABLE)
        for each in routes
    )
    fix = partial(_add_route, request, wanted, addition)
    return Property("", is_there, wanted=True, message=message, fix=fix)


def _add_rule(request: Request, source: Source, _undo: Undo) -> str:
    with netns.open_netns(request.netns) as ns, tables.opened(ns) as nl:
        rule.ensure(nl, tables.rule_of(source))
    return f"added rule {tables.rule_of(source)}"


def _add_route(request: Request, wanted: Route, addition: Message, _undo: Undo) -> str:
    with netns.open_netns(request.netns) as ns, tables.opened(ns) as nl:
        nl.batch([addition])
    return f"added the route to {wanted.dst} by {request.ifname}"
