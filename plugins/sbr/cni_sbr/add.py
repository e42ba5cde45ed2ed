"""ADD: send what the container sends from an interface's address through that interface."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from cni.kernel import netns, route, rule
from cni.result import Result
from cni_sbr import record, tables
from cni_sbr.plan import is_moved, plan_copies, plan_default, plan_hints, plan_sources, required_ips

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.kernel.rtnetlink import Message, Netlink
    from cni.request import Request
    from cni.undo import Undo
    from cni_sbr.conf import SbrConf


def add(conf: SbrConf, request: Request, undo: Undo) -> Result:
    """Make the rules and fill their tables, and return prevResult.

    The routes of the interface leave the main table at the end, so that traffic has a way all the time.
    """
    ips = required_ips(request)
    key = record.key_of(conf.name, request.attachment)
    with netns.open_netns(request.netns) as ns, tables.opened(ns) as nl:
        own = tables.required_link(nl, request)
        if earlier := record.load(key, ns):
            # It was killed, or no DEL followed.
            record.take_back(nl, earlier)
        main = tables.list_main(nl, own)
        sources = plan_sources(conf, ips, tables.list_used(nl))
        moved = [each for each in main if is_moved(conf, each)]
        hints = [route.add(own.name, own.index, each, src=each.src) for each in plan_hints(conf, ips)]
        change = record.Change.model_validate({
            "index": own.index,
            "rules": {str(each.network): each.table for each in sources},
            "configured": conf.table is not None,
            "moved": [each.encoded.hex() for each in moved],
            "hints": [each.body.hex() for each in hints],
        })  # fmt: skip
        undo.add("put rules and routes back", record.take_back_at, request.netns, key)
        record.save(key, change, ns)
        for source in sources:
            defaults = [route.add(own.name, own.index, each) for each in plan_default(conf, source)]
            copies = plan_copies(conf, source, moved)
            again = [route.again(own.name, each.encoded, source.table) for each in copies]
            _send(nl, [*defaults, *again], errno.EEXIST)
        present = [each._replace(priority=0) for each in rule.list_rules(nl)]
        wanted = [tables.rule_of(each) for each in sources]
        _send(nl, [rule.add(each) for each in wanted if each not in present], errno.EEXIST)
        # Routes by a gateway first: they need the others.
        moved.sort(key=lambda each: each.route.gw is None)
        _send(nl, [route.remove_exactly(own.name, each.encoded) for each in moved], errno.ESRCH)
        _send(nl, hints, errno.EEXIST)
    return request.prev_result or Result()


def _send(nl: Netlink, messages: Sequence[Message], harmless: int) -> None:
    """Send messages at once. Raise KernelError for the first refusal that is not `harmless`."""
    for refusal in filter(None, nl.attempt(messages) if messages else []):
        if refusal.errno != harmless:
            raise refusal
