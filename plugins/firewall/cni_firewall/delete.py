"""DEL: remove the container's rules, and those of its network if no other container needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import CniError
from cni.kernel import dbus
from cni_firewall import attachment
from cni_firewall.conf import NFTABLES
from cni_firewall.plan import Plan, plan, plan_owner

if TYPE_CHECKING:
    from cni.request import Request
    from cni_firewall.conf import FirewallConf


def delete(conf: FirewallConf, request: Request) -> None:
    """Remove all of the attachment: by its record, or as the Go plugin made it, by prevResult."""
    saved = attachment.load(plan_owner(conf, request))
    if saved is not None:
        attachment.remove(*saved)
        return
    found = _plan_without_record(conf, request)
    choice = attachment.Choice("", conf.admin_chain, conf.zone, dbus.find_bus(request.env))
    attachment.remove_unrecorded(found, choice, is_firewalld_possible=conf.known_backend in {"", "firewalld"})


def _plan_without_record(conf: FirewallConf, request: Request) -> Plan:
    if request.prev_result is None:
        return Plan(plan_owner(conf, request))
    through_nftables = conf.known_backend == NFTABLES
    try:
        return plan(conf, request, request.prev_result, through_nftables=through_nftables)
    except CniError:
        # A policy without a link: there was no ADD that succeeded.
        addresses = tuple(dict.fromkeys(each.address.ip for each in request.prev_result.ips))
        return Plan(plan_owner(conf, request), addresses)
