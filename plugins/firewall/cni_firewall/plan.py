"""The needs of a container of the packet filter. Pure."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, NamedTuple

from cni.errors import CniError, Code
from cni.firewall.intents import Owner
from cni.interface.conf import is_link_name
from cni_firewall.conf import ISOLATED, OPEN, SAME_BRIDGE, STRICT

if TYPE_CHECKING:
    from cni.request import Request
    from cni.result import IpAddress, Result
    from cni_firewall.conf import FirewallConf

# The name of this plugin's tables of nftables.
TABLE = "pycni_firewall"
# Policies of a link, as sets of nftables are called.
KNOWN, CLOSED, SEALED, INTERNAL, NO_ICC = "links", "isolated", "strict", "internal", "no_icc"
# Chains of the Go plugin that isolate a bridge.
GO_SAME_BRIDGE, GO_ISOLATED = "go-same-bridge", "go-isolated"


class Plan(NamedTuple):
    """The needs of one attachment.

    `addresses` are to be admitted. `link` is the link of the host that all containers of the network share,
    usually a bridge; `ports` are the host ends of the container. `policies` are those of the link.
    `allow` are the names of networks whose containers may come in.
    """

    owner: Owner
    addresses: tuple[IpAddress, ...] = ()
    link: str = ""
    ports: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()

    @property
    def versions(self) -> list[int]:
        """The IP versions of its addresses."""
        return sorted({each.version for each in self.addresses})

    def to_values(self) -> dict[str, Any]:
        """Return what DEL must know, as JSON."""
        return {
            "ips": [str(each) for each in self.addresses],
            "link": self.link,
            "ports": list(self.ports),
            "policies": list(self.policies),
            "allow": list(self.allow),
        }


def plan_owner(conf: FirewallConf, request: Request) -> Owner:
    """Return the owner of the rules."""
    return Owner(conf.name, request.container_id, request.ifname)


def plan(conf: FirewallConf, request: Request, result: Result, *, through_nftables: bool) -> Plan:
    """Return the plan for a result. Raise CniError 7 if a policy needs a link of the host and there is none.

    `through_nftables`: whether the backend nftables does what `ingressPolicy` asks for.
    """
    hosts = [each.name for each in result.interfaces if not each.sandbox]
    link = hosts[0] if hosts else ""
    policies = tuple(_policies(conf, through_nftables=through_nftables))
    if policies and not link:
        wanted = f'ingress policy "{conf.ingress}"' if conf.ingress != OPEN else "isolation"
        raise CniError(
            Code.INVALID_CONFIG,
            f'interface needs to be set for {wanted}, make sure to chain "firewall" plugin with "bridge"',
            "the result of the plugins before it names no link of the host",
        )
    for name in hosts if link else ():
        # iptables reads a "+" at the end as all names that begin so, and others as options.
        if not is_link_name(name) or name.endswith("+") or name.startswith(("-", "!")):
            raise CniError(
                Code.INVALID_CONFIG,
                f'"{name}" of prevResult cannot be the name of a link',
                "Rename the link.",
            )
    return Plan(
        plan_owner(conf, request),
        tuple(dict.fromkeys(each.address.ip for each in result.ips)),
        link,
        tuple(hosts[1:] or hosts) if NO_ICC in policies else (),
        (KNOWN, *policies) if link else (),
        conf.allow if link else (),
    )


def _policies(conf: FirewallConf, *, through_nftables: bool) -> list[str]:
    found = []
    if conf.isolate == STRICT:
        found.append(SEALED)
    elif conf.isolate or (through_nftables and conf.ingress != OPEN):
        found.append(CLOSED)
    if conf.internal:
        found.append(INTERNAL)
    if not conf.icc or (through_nftables and conf.ingress == ISOLATED):
        found.append(NO_ICC)
    if not through_nftables and conf.ingress != OPEN:
        found.append(GO_SAME_BRIDGE if conf.ingress == SAME_BRIDGE else GO_ISOLATED)
    return found


def parse_values(owner: Owner, values: Any) -> Plan:
    """Return the plan that `to_values` has saved. What is no text of its kind is left out."""

    def texts(key: str) -> tuple[str, ...]:
        listed = values.get(key)
        return tuple(each for each in listed if isinstance(each, str)) if isinstance(listed, list) else ()

    addresses = []
    for text in texts("ips"):
        try:
            addresses.append(ip_address(text))
        except ValueError:
            continue
    link = values.get("link")
    return Plan(
        owner,
        tuple(addresses),
        link if isinstance(link, str) and is_link_name(link) else "",
        tuple(filter(is_link_name, texts("ports"))),
        texts("policies"),
        texts("allow"),
    )
