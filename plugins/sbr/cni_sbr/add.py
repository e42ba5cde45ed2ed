"""ADD: send what the container sends from an interface's address through that interface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni.kernel import netns, route, rule
from cni.kernel.rtnetlink import Netlink
from cni.result import Result
from cni.state import attachments
from cni_sbr import tables
from cni_sbr.plan import is_link_local, plan_hints, plan_routes, plan_sources, required_ips

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.request import Request
    from cni.undo import Undo
    from cni_sbr.conf import SbrConf


def add(conf: SbrConf, request: Request, undo: Undo) -> Result:
    """Make the rules and fill their tables, and return prevResult.

    The routes of the interface leave the main table at the end, so that traffic has a way all the time.
    """
    ips = required_ips(request)

    def invert(action: str, step: Callable[..., object], *args: Any) -> None:
        undo.add(action, _run_inside, request.netns, step, *args)

    with netns.open_netns(request.netns) as ns, tables.opened(ns) as nl:
        own = tables.required_link(nl, request)
        name, index = own.name, own.index
        main = [each.route._replace(src=each.src) for each in tables.list_main(nl, own)]
        sources = plan_sources(conf, ips, tables.list_used(nl))
        undo.add("remove the record", attachments.drop, tables.key(conf, request))
        tables.save(conf, request, ns, sources)
        present = [each._replace(priority=0) for each in rule.list_rules(nl)]
        for source in sources:
            for wanted in plan_routes(conf, source, main):
                invert(f"remove the route to {wanted.dst}", route.remove, name, index, wanted)
                route.ensure(nl, name, index, wanted, src=wanted.src)
            wanted_rule = tables.rule_of(source)
            if wanted_rule not in present:
                invert(f"remove rule {wanted_rule}", rule.remove, wanted_rule)
                rule.ensure(nl, wanted_rule)
        moved = [] if conf.table else [each for each in main if not is_link_local(each)]
        # Routes by a gateway first: they are added again last if something fails.
        for each in sorted(moved, key=lambda each: each.gw is None):
            invert(f"add the route to {each.dst} again", _restore, name, index, each)
            route.remove(nl, name, index, each)
        for hint in plan_hints(conf, ips):
            invert(f"remove the route to {hint.dst}", route.remove, name, index, hint)
            route.ensure(nl, name, index, hint, src=hint.src)
    return request.prev_result or Result()


def _restore(nl: Netlink, name: str, index: int, moved: Any) -> None:
    route.ensure(nl, name, index, moved, src=moved.src)


def _run_inside(path: str, step: Callable[..., object], *args: object) -> None:
    """Run a step with a socket in the namespace at `path`, if that is there."""
    ns = netns.find(path)
    if ns is not None:
        with ns, Netlink(ns) as nl:
            step(nl, *args)
