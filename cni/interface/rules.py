"""The properties of firewall rules: masquerade and MAC spoof check."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.firewall import select, spoofcheck
from cni.interface.compare import holds
from cni.interface.masquerade import FEATURE, apply
from cni.operations.properties import Property

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.firewall.intents import Masquerade
    from cni.interface.compare import Attachment
    from cni.interface.conf import MasqueradeConf
    from cni.kernel.link import Link
    from cni.undo import Undo


def of_masquerade(conf: MasqueradeConf, intent: Masquerade) -> Iterator[Property]:
    """Yield one property for each rule that is missing."""
    brief = "; ".join(f"masquerading of {each.ip}: rules are missing" for each in intent.addresses)
    fix = partial(_restore, conf, intent)
    for message in select.differences(conf.ip_masq_backend, FEATURE, intent):
        yield Property("", actual=None, wanted=message, message=message, fix=fix, brief=brief)


def _restore(conf: MasqueradeConf, intent: Masquerade, undo: Undo) -> str:
    backend = select.choose(conf.ip_masq_backend, FEATURE)
    backend.rebuild(intent)
    apply(backend, intent, undo)
    return f"masquerading with {backend.name}"


def of_spoof_check(of: Attachment, host: Link, container: Link) -> Iterator[Property]:
    """Yield one property for each fault of the MAC spoof check."""
    mac, owner = of.recorded.mac, of.plan.owner
    fix = partial(_restore_spoof_check, of, host.name)
    for message in spoofcheck.differences(owner, host.name, mac or container.mac):
        yield holds(None, message, fix)


def _restore_spoof_check(of: Attachment, host_name: str, undo: Undo) -> str:
    if not of.recorded.mac:
        # Not the MAC address that the link has: the container may have set it.
        raise CniError(
            Code.MISMATCH,
            f"prevResult names no MAC address of {of.plan.ifname}, which the spoof check allows",
            "attach the container again: DEL, then ADD",
        )
    spoofcheck.ensure(of.plan.owner, host_name, of.recorded.mac, undo)
    return f"the MAC spoof check of {host_name}"
