"""The properties of an attachment, which CHECK compares and repair restores."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.kernel import dbus
from cni.operations.properties import Property
from cni.undo import Undo
from cni_firewall import attachment, differences
from cni_firewall.attachment import Choice, Saved
from cni_firewall.conf import BACKENDS, NFTABLES
from cni_firewall.plan import plan, plan_owner

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.request import Request
    from cni_firewall.conf import FirewallConf
    from cni_firewall.plan import Plan


def list_properties(conf: FirewallConf, request: Request) -> Iterator[Property]:
    """Yield a property for each rule that is missing."""
    wanted, choice = find_wanted(conf, request)
    missing = differences.find(wanted, choice)
    addresses = ", ".join(map(str, wanted.addresses))
    brief = f"forwarded traffic of {addresses or 'the container'}: rules are missing"
    fix = partial(_restore, wanted, choice, request.netns)
    for each in missing:
        yield Property("rule", "missing", "present", each, fix, brief)


def find_wanted(conf: FirewallConf, request: Request) -> Saved:
    """Return the attachment's plan, and how it was admitted: by its record, else where its rules are."""
    result = request.required_prev_result()
    saved = attachment.load(plan_owner(conf, request))
    if saved is not None:
        backend = conf.known_backend or saved.choice.backend
        choice = Choice(backend, conf.admin_chain, conf.zone, dbus.find_bus(request.env))
        return Saved(plan(conf, request, result, through_nftables=backend == NFTABLES), choice)
    chosen = attachment.choose(conf, request.env)
    candidates = [
        Saved(plan(conf, request, result, through_nftables=name == NFTABLES), chosen._replace(backend=name))
        for name in dict.fromkeys((chosen.backend, *([] if conf.known_backend else BACKENDS)))
    ]
    # Neither the Go plugin nor a host without /run says which backend its ADD has chosen.
    return next((each for each in candidates if not differences.find(*each)), candidates[0])


def _restore(wanted: Plan, choice: Choice, netns: str, _undo: Undo) -> str:
    # A repair that fails keeps what it has restored: inverses of ADD also remove what was there before.
    unused = Undo()
    attachment.save(wanted, choice, netns, unused)
    attachment.apply(wanted, choice, unused)
    unused.cancel()
    differences.rebuild(choice)
    addresses = ", ".join(map(str, wanted.addresses))
    return f"admitted {addresses} with {choice.backend}" if addresses else "isolated the network"
