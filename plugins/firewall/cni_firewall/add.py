"""ADD: admit the container's addresses, and isolate its network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.firewall import select
from cni.log import note
from cni_firewall import attachment
from cni_firewall.conf import IPTABLES, NFTABLES
from cni_firewall.plan import plan, plan_owner

if TYPE_CHECKING:
    from cni.request import Request
    from cni.result import Result
    from cni.undo import Undo
    from cni_firewall.attachment import Choice
    from cni_firewall.conf import FirewallConf


def add(conf: FirewallConf, request: Request, undo: Undo) -> Result:
    """Make the rules, and return prevResult."""
    result = request.prev_result
    if result is None:
        raise CniError(
            Code.INVALID_CONFIG,
            "missing prevResult from earlier plugin",
            "List firewall behind the plugin that makes the container's interface.",
        )
    if conf.backend != conf.known_backend:
        note(f'firewall: backend "{conf.backend}" is unknown, so that it is chosen automatically')
    choice = attachment.choose(conf, request.env)
    attachment.require_backend(choice)
    _replace_former(conf, request, result)
    try:
        _apply(conf, request, result, choice, undo)
    except CniError as error:
        if conf.known_backend or choice.backend != IPTABLES or not _is_unusable(error):
            raise
        # It raises if nftables is no remedy.
        select.require_usable(None, attachment.PURPOSE)
        _apply(conf, request, result, choice._replace(backend=NFTABLES), undo)
    return result


def _apply(conf: FirewallConf, request: Request, result: Result, choice: Choice, undo: Undo) -> None:
    wanted = plan(conf, request, result, through_nftables=choice.backend == NFTABLES)
    attachment.save(wanted, choice, request.netns, undo)
    attachment.apply(wanted, choice, undo)


def _replace_former(conf: FirewallConf, request: Request, result: Result) -> None:
    """Remove what an earlier ADD of the attachment has made, if it differs."""
    saved = attachment.load(plan_owner(conf, request))
    if saved and {*saved.plan.addresses} - {each.address.ip for each in result.ips}:
        attachment.remove(*saved)


def _is_unusable(error: CniError) -> bool:
    """Return whether iptables cannot work here. It is probed after a failure only."""
    # A host where it works has loaded it already.
    from cni.firewall.iptables.backend import Iptables

    return error.code != Code.TRY_AGAIN and bool(Iptables().unusable_because())
