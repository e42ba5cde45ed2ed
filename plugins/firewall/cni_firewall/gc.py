"""GC: remove the rules of attachments that are no longer valid, and of bridges that do not exist."""

from __future__ import annotations

import socket
from functools import partial
from typing import TYPE_CHECKING

from cni.firewall import nft, owners
from cni.firewall.intents import Owner
from cni.operations.garbage import Removal, Stale
from cni.state import attachments
from cni_firewall import attachment, iptables, nftables, uses
from cni_firewall.plan import GO_ISOLATED, GO_SAME_BRIDGE, TABLE
from cni_firewall.uses import Use

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.operations.garbage import Finder
    from cni.request import Attachment, Request
    from cni_firewall.conf import FirewallConf

_NO_LINK = "its link does not exist"


def finders(conf: FirewallConf, request: Request) -> list[Finder]:
    """Return the finders: by records, by comments, by the names of links, then what is empty."""
    valid = request.required_valid()
    return [
        partial(_recorded, conf.name, valid),
        partial(_commented, conf.name, owners.tags(conf.name, valid)),
        partial(_used, conf.name, owners.tags(conf.name, valid)),
        _without_link,
        _isolated_without_link,
        _empty,
    ]


def _recorded(network: str, valid: frozenset[Attachment]) -> Iterator[Removal]:
    for record in attachments.list_stale(attachment.PLUGIN, network, valid):
        owner = Owner(network, record.container_id, record.ifname)
        thing = Stale("record", record.path, *owner)
        if not record.container_id:
            yield Removal((thing,), partial(attachments.remove, record))
            continue
        saved = attachment.read(owner, record)
        rules = [Stale("rules", str(each), *owner) for each in saved.plan.addresses]
        yield Removal((*rules, thing), partial(attachment.remove, *saved))


def _commented(network: str, valid: frozenset[str]) -> Iterator[Removal]:
    found = nftables.search_network(network, valid)
    if found:
        things = tuple(
            Stale("nftables element", nftables.shown(each), *(owners.parse(comment) or ()))
            for each, comment in found
        )
        yield Removal(things, partial(nftables.remove_invalid, network, valid))


def _used(network: str, valid: frozenset[str]) -> Iterator[Removal]:
    """Yield notes of uses whose record is lost."""
    for use, tag in uses.list_invalid(owners.network_tag(network), valid):
        thing = Stale("file", f"{use.folder}/{tag}", network)
        yield Removal((thing,), partial(uses.forget, use, tag))


def _without_link() -> Iterator[Removal]:
    """Yield elements of links that do not exist, which no attachment uses."""
    gone = [(each, link) for each, link in nftables.list_links() if not _exists(link)]
    gone = [(each, link) for each, link in gone if not uses.is_used(Use(each.set_name, link))]
    if gone:
        names = [f"{link} in set {each.set_name}" for each, link in gone]
        things = tuple(Stale("nftables element", name, reason=_NO_LINK) for name in names)
        yield Removal(things, partial(nftables.remove_links, {link for _, link in gone}))


def _isolated_without_link() -> Iterator[Removal]:
    """Yield rules of the Go plugin's chains for bridges that do not exist."""
    for bridge in iptables.list_isolated():
        kinds = [f"{policy}-ipv{version}" for policy in (GO_SAME_BRIDGE, GO_ISOLATED) for version in (4, 6)]
        if not _exists(bridge) and not any(uses.is_used(Use(kind, bridge)) for kind in kinds):
            thing = Stale("iptables rules", f"isolation of {bridge}", reason=_NO_LINK)
            yield Removal((thing,), partial(iptables.release, bridge))


def _empty() -> Iterator[Removal]:
    for family in nftables.list_unused():
        thing = Stale("nftables table", f"{nft.FAMILY_NAMES[family]} {TABLE}", reason="it is empty")
        yield Removal((thing,), partial(nftables.remove_unused, family))


def _exists(link: str) -> bool:
    try:
        socket.if_nametoindex(link)
    except OSError:
        return False
    return True
