"""The layout of this plugin's nftables tables: names, the script that makes them, and elements. Pure.

Table `inet pycni_firewall` has one chain of constant length: addresses, links and pairs of links are
elements of sets, so that neither an ADD nor a packet costs more with more networks. Verdict maps could
replace some rules, but the kernel validates all elements of such a map again with each new one.

`accept` in one table does not overrule `drop` in another one. Therefore an admitted packet gets a mark, and
a chain of another table that drops by its policy gets one rule, which accepts packets with the mark.

Table `bridge pycni_firewall` has the ports of bridges whose containers must not reach each other. It works
without br_netfilter, and does not depend on `meta ibrname`, which not every kernel has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.firewall import nft
from cni.firewall.nftables.elements import Element
from cni_firewall.plan import CLOSED, INTERNAL, KNOWN, NO_ICC, SEALED, TABLE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.result import IpAddress

# Admitted addresses, by IP version.
ADDRESSES = {4: "admitted4", 6: "admitted6"}
# Each known link with itself; links with links that they may connect to.
SAME, ALLOWED = "same", "allowed"
PORTS = "ports"
LINK_SETS = (KNOWN, CLOSED, SEALED, INTERNAL, NO_ICC)
SETS = ((nft.INET, (*ADDRESSES.values(), *LINK_SETS, SAME, ALLOWED)), (nft.BRIDGE, (PORTS,)))
MARK = 0x1000
GATE = "pycni: admitted by the firewall plugin"
# How many rules and jumps use each chain, and whether it has a hook.
CHAINS = {
    nft.INET: {"forward": (10, True), "inside": (5, False), "admitted": (11, False)},
    nft.BRIDGE: {"forward": (1, True)},
}
_NAME_BYTES = 16

_MARKED = f"meta mark set meta mark | {MARK:#x}"

_INET = f"""
add table inet {TABLE}
add set inet {TABLE} admitted4 {{ type ipv4_addr; }}
add set inet {TABLE} admitted6 {{ type ipv6_addr; }}
{{link_sets}}
add set inet {TABLE} {SAME} {{ type ifname . ifname; }}
add set inet {TABLE} {ALLOWED} {{ type ifname . ifname; }}
add chain inet {TABLE} admitted
add chain inet {TABLE} inside
add chain inet {TABLE} forward {{ type filter hook forward priority -10; policy accept; }}
flush chain inet {TABLE} forward
flush chain inet {TABLE} inside
flush chain inet {TABLE} admitted
add rule inet {TABLE} admitted ip saddr @admitted4 {_MARKED}
add rule inet {TABLE} admitted ip6 saddr @admitted6 {_MARKED}
add rule inet {TABLE} admitted ct state established,related ip daddr @admitted4 {_MARKED}
add rule inet {TABLE} admitted ct state established,related ip6 daddr @admitted6 {_MARKED}
add rule inet {TABLE} inside iifname != @{NO_ICC} goto admitted
add rule inet {TABLE} inside ct state established,related goto admitted
add rule inet {TABLE} inside ct status dnat goto admitted
add rule inet {TABLE} inside drop
add rule inet {TABLE} forward iifname . oifname @{SAME} goto inside
add rule inet {TABLE} forward iifname @{INTERNAL} drop
add rule inet {TABLE} forward oifname @{INTERNAL} drop
add rule inet {TABLE} forward ct state established,related goto admitted
add rule inet {TABLE} forward ct status dnat goto admitted
add rule inet {TABLE} forward iifname . oifname @{ALLOWED} goto admitted
add rule inet {TABLE} forward iifname @{CLOSED} oifname @{CLOSED} drop
add rule inet {TABLE} forward iifname @{SEALED} oifname @{KNOWN} drop
add rule inet {TABLE} forward iifname @{KNOWN} oifname @{SEALED} drop
add rule inet {TABLE} forward goto admitted
"""
_BRIDGE = f"""
add table bridge {TABLE}
add set bridge {TABLE} {PORTS} {{ type ifname; }}
add chain bridge {TABLE} forward {{ type filter hook forward priority 0; policy accept; }}
flush chain bridge {TABLE} forward
add rule bridge {TABLE} forward iifname @{PORTS} oifname @{PORTS} drop
"""


def script(family: int) -> str:
    """Return the script that makes a table, or makes it whole in one transaction. Elements remain."""
    if family == nft.BRIDGE:
        return _BRIDGE
    link_sets = "\n".join(f"add set inet {TABLE} {name} {{ type ifname; }}" for name in LINK_SETS)
    return _INET.replace("{link_sets}", link_sets)


def admitted(addresses: Iterable[IpAddress]) -> list[Element]:
    """Return the elements that admit addresses."""
    return [
        Element(nft.INET, ADDRESSES[each.version], each.packed, b"", f"admission of {each}", TABLE)
        for each in addresses
    ]


def ports(names: Iterable[str]) -> list[Element]:
    """Return the elements that keep the containers of ports from each other."""
    return [Element(nft.BRIDGE, PORTS, _key(each), b"", f"separation of {each}", TABLE) for each in names]


def of_link(policy: str, link: str) -> list[Element]:
    """Return the elements that give a link a policy."""
    found = [Element(nft.INET, policy, _key(link), b"", f"{policy.replace('_', ' ')} {link}", TABLE)]
    if policy == KNOWN:
        found.append(Element(nft.INET, SAME, _key(link) * 2, b"", f"network of {link}", TABLE))
    return found


def allowed(source: str, target: str) -> Element:
    """Return the element that lets the containers of one link connect to those of another."""
    return Element(
        nft.INET, ALLOWED, _key(source) + _key(target), b"", f"way from {source} to {target}", TABLE
    )


def link_of(element: Element) -> str:
    """Return the name of the link, or of the first of two, in the key of an element."""
    return element.key[:_NAME_BYTES].rstrip(b"\0").decode(errors="replace")


def _key(link: str) -> bytes:
    return link.encode().ljust(_NAME_BYTES, b"\0")
