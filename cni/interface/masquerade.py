"""Masquerading as part of ADD and DEL of an interface plugin; `compare` has its properties."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.firewall import host_gateways, select
from cni.firewall.intents import MASQUERADE
from cni.interface.plan import owner_of

if TYPE_CHECKING:
    from cni.firewall.intents import Applying, Masquerade
    from cni.interface.conf import MasqueradeConf
    from cni.request import Request
    from cni.undo import Undo

FEATURE = "ipmasq"


def choose(conf: MasqueradeConf) -> Applying | None:
    """Return the backend for an ADD, None if the configuration asks for no masquerade.

    Raise CniError 7 for an unknown name: call it before anything is made.
    """
    return select.choose_for_add(conf.ip_masq_backend, FEATURE) if conf.has_masquerade else None


def apply(backend: Applying, intent: Masquerade, undo: Undo) -> None:
    """Masquerade a container. The host must have the address of its gateway by then, if it is to have it."""
    backend.apply(host_gateways.without_others(intent), undo)


def remove(conf: MasqueradeConf, request: Request) -> None:
    """Remove the masquerade of an attachment, whichever backend made it."""
    if conf.ip_masq:
        ips = request.prev_result.ips if request.prev_result else ()
        select.remove(owner_of(conf, request), MASQUERADE, [each.address.ip for each in ips])
