"""STATUS: whether an ADD can admit and isolate now, and whether running containers still are."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.firewall import nft, select, stores
from cni.firewall.intents import Owner
from cni.operations.status import Reasons, trial
from cni.state import attachments, files
from cni_firewall import attachment, differences, uses
from cni_firewall.conf import FIREWALLD, IPTABLES, NFTABLES, OPEN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.operations.status import Impairment
    from cni.request import Request
    from cni_firewall.attachment import Choice
    from cni_firewall.conf import FirewallConf


def status(conf: FirewallConf, request: Request) -> None:
    """Raise CniError 50 if addresses cannot be admitted, 51 if running containers have lost their rules."""
    choice = attachment.choose(conf, request.env)
    reasons = Reasons()
    reasons.attempt(_try_namespace)
    reasons.attempt(attachment.require_backend, choice)
    if choice.backend == IPTABLES:
        reasons.attempt(_try_iptables, conf)
    elif conf.ingress != OPEN and choice.backend == FIREWALLD:
        reasons.attempt(select.require_usable, IPTABLES, attachment.PURPOSE)
    if choice.backend == NFTABLES or conf.isolate or conf.internal or not conf.icc or conf.allow:
        reasons.attempt(_try_nftables)
    reasons.attempt(_check_stores, choice)
    reasons.attempt(reasons.limit, partial(_list_impairments, conf.name))
    reasons.raise_any()


def _try_namespace() -> None:
    with trial():
        pass  # ADD enters the namespace of the container, to record which one it is.


def _try_iptables(conf: FirewallConf) -> None:
    if conf.known_backend:
        select.require_usable(conf.known_backend, attachment.PURPOSE)
        return
    # Without a name in the configuration an ADD may use nftables.
    if select.choose(None, attachment.PURPOSE).name == NFTABLES:
        _try_nftables()


def _try_nftables() -> None:
    from cni_firewall import nftables_layout  # Only some networks use nftables.

    select.require_usable(NFTABLES, attachment.PURPOSE)
    with trial():
        for family, _ in nftables_layout.SETS:
            nft.run_text(nftables_layout.script(family), "probe nftables")


def _check_stores(choice: Choice) -> None:
    files.check_writable(attachments.FOLDER)
    files.check_writable(uses.FOLDER)
    if choice.backend == IPTABLES:
        stores.check(IPTABLES, attachment.PURPOSE)


def _list_impairments(network: str) -> Iterator[Impairment]:
    for record in attachments.list_stale(attachment.PLUGIN, network, ()):
        if not record.container_id or attachment.is_dead(record):
            continue
        saved = attachment.read(Owner(network, record.container_id, record.ifname), record)
        if differences.find(*saved):
            yield "forwarded traffic may be dropped of", f"{record.container_id} {record.ifname}"
