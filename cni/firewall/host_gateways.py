"""Find the gateways that the host itself is: rules for other gateways match no packet.

A network without `isGateway` may have its gateway on another machine. GC removes rules for such a gateway, so
that neither ADD makes them nor CHECK asks for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from cni.kernel import route
from cni.kernel.rtnetlink import Netlink

if TYPE_CHECKING:
    from cni.firewall.intents import Masquerade, PortForward

Planned = TypeVar("Planned", "Masquerade", "PortForward")


def without_others(intent: Planned) -> Planned:
    """Return the intent with those of its gateways whose addresses the host has; each is one look-up."""
    if not intent.gateways:
        return intent
    with Netlink() as nl:
        own = {ip for ip in dict.fromkeys(each.ip for each in intent.gateways) if route.is_local(nl, ip)}
    return intent._replace(gateways=tuple(each for each in intent.gateways if each.ip in own))
