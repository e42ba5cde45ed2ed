"""The limits of both directions, and the names and marks of the ifb; pure."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from cni.interface.conf import is_link_name
from cni.marks import alias, attachment_of

if TYPE_CHECKING:
    from cni.conf import NetConf
    from cni.firewall.intents import Owner
    from cni.request import Attachment, Request
    from cni.result import IpNetwork, Result
    from cni_bandwidth.conf import BandwidthConf

# As the Go plugin names its links, so that either suite removes those of the other.
PREFIX = "bwp"
_DIGITS = 12
# Not that of a host end.
_MARK = "bandwidth:"
_MOST_NAMES = 64


class Shape(NamedTuple):
    """A limit, in bytes. `burst` may be more than 32 bits of time can hold.

    Without `subnets` all traffic has the limit. Otherwise it is for traffic with peers in the subnets, or for
    all other traffic. `peer_is_source` is for what the container receives.
    """

    rate: int
    burst: int
    latency_us: int
    subnets: tuple[IpNetwork, ...]
    limits_named: bool
    peer_is_source: bool


class Plan(NamedTuple):
    """The limits of an attachment; None where a direction has none."""

    ingress: Shape | None
    egress: Shape | None


def plan_limits(conf: BandwidthConf) -> Plan:
    """Return the limits of both directions."""
    limits = conf.limits
    pairs = (
        (limits.ingress_rate, limits.ingress_burst, True),
        (limits.egress_rate, limits.egress_burst, False),
    )
    shapes = []
    for rate, burst, peer_is_source in pairs:
        capped = min(burst, conf.max_burst) if conf.max_burst else burst
        shape = Shape(
            rate // 8,
            capped // 8,
            conf.latency_ms * 1000,
            conf.named_subnets,
            conf.limits_named,
            peer_is_source,
        )
        shapes.append(shape if rate else None)
    return Plan(*shapes)


def go_name(network: str, container_id: str) -> str:
    """Return the name that the Go plugin gives the ifb: the same one for all interfaces of a container."""
    return _name(network + container_id)


def names(owner: Owner) -> tuple[str, str]:
    """Return the name of the ifb, and the one that it has if another interface has the first."""
    own = f"{owner.network}/{owner.container_id}/{owner.ifname}"
    return go_name(owner.network, owner.container_id), _name(own)


def _name(text: str) -> str:
    return PREFIX + hashlib.sha512(text.encode()).hexdigest()[:_DIGITS]


def mark(conf: NetConf, request: Request) -> str:
    """Return the alias of the ifb, which names its owner."""
    return _MARK + alias(conf.name, request.attachment)


def owner_of_mark(text: str, network: str) -> Attachment | None:
    """Return the attachment in an alias of an ifb; None for another network or another alias."""
    return attachment_of(text.removeprefix(_MARK), network) if text.startswith(_MARK) else None


def host_links(result: Result) -> list[str]:
    """Return the names of links of the host in a result, of which one may be the host end."""
    found = [each.name for each in result.interfaces if not each.sandbox and is_link_name(each.name)]
    return found[:_MOST_NAMES]
