"""Probe for STATUS, in a separate namespace, whether programs and kernel can make the rules of an ADD."""

from __future__ import annotations

from ipaddress import ip_interface
from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.firewall import nft, select
from cni.firewall.intents import Masquerade, Owner, PortForward, PortMapping
from cni.firewall.iptables import rules, transaction
from cni.firewall.iptables.execute import Tool
from cni.firewall.nftables import layout
from cni.operations.status import has_ipv6, trial

if TYPE_CHECKING:
    from cni.firewall.iptables.rule import Rule

_OWNER = Owner("status", "status", "eth0")
_ADDRESSES = {4: ip_interface("192.0.2.2/24"), 6: ip_interface("2001:db8::2/64")}
_PORTS = (PortMapping("tcp", 1, 1), PortMapping("udp", 1, 1))


def require_working(asked: str | None, purpose: str) -> None:
    """Raise CniError 50, with the reason, if the backend that `asked` selects does not work here."""
    select.require_usable(asked, purpose)
    name = select.choose(asked, purpose).name
    step = {"iptables": _try_iptables, "nftables": _try_nftables}[name]
    try:
        with trial():
            step()
    except CniError as error:
        raise CniError(
            Code.NOT_AVAILABLE, f"the {purpose} backend {name} does not work here", str(error)
        ) from error


def _try_nftables() -> None:
    families = [nft.IPV4, *([nft.IPV6] if has_ipv6() else [])]
    shared = [
        layout.Shared(family, subnet)
        for family in families
        for subnet in ("", str(_ADDRESSES[4 if family == nft.IPV4 else 6].network))
    ]
    text = "".join(layout.setup_script(each, "status") for each in shared)
    nft.run_text(text, "probe nftables")


def _try_iptables() -> None:
    """Try each IP version. One that works suffices, as containers need not have both."""
    errors = []
    for version in (4, 6):
        try:
            Tool(version, rules.NAT).apply("probe the rules of an ADD", _iptables_lines(version))
        except CniError as error:
            errors.append(error)
        else:
            return
    raise errors[0]


def _iptables_lines(version: int) -> list[str]:
    targets = (_ADDRESSES[version],)
    forward = rules.port_forward(PortForward(_OWNER, _PORTS, targets), version)
    return [
        *transaction.ensure_shared({}, forward.shared, _has_none),
        *transaction.make_chain(forward),
        *transaction.make_chain(rules.masquerade(Masquerade(_OWNER, targets), version)),
    ]


def _has_none(_: Rule) -> bool:
    return False
