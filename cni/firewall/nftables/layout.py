"""The layout of our nftables tables: names, and the scripts that make what attachments share. Pure.

Each family has a table, and each subnet two sets and a few rules; attachments are elements. A packet costs
one hash look-up, whatever the number of containers, and so does an attachment. Verdict maps need no rule per
subnet, but the kernel validates all their elements again with each new one (0.8 ms at 10 000 of them). Each
script begins with `create`: of calls at the same time one makes the object, and the others find it.
"""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import TYPE_CHECKING, NamedTuple

from cni.firewall.nft import IPV4, IPV6

if TYPE_CHECKING:
    from cni.result import IpNetwork

FAMILIES = (IPV4, IPV6)
TABLE = "pycni"
# Host ports of all local addresses, and those of one.
PORTS = "ports"
HOST_IP_PORTS = "host_ip_ports"
MASQUERADE_ALL = "masquerade_all"
# Ports of the maps above that only some clients reach, and pairs of such a port and a network of clients.
RESTRICTED, CLIENTS = "restricted", "clients"
HOST_IP_RESTRICTED, HOST_IP_CLIENTS = "host_ip_restricted", "host_ip_clients"
# Pairs of a container's address and a destination to which it is not masqueraded.
NOT_MASQUERADED = "not_masqueraded"
# The sets for the clients of a port, by the map that has the port.
RESTRICTIONS = {PORTS: (RESTRICTED, CLIENTS), HOST_IP_PORTS: (HOST_IP_RESTRICTED, HOST_IP_CLIENTS)}
# The comment of its one element names the folder that has the records since the table was made.
RECORDS = "records"
CONDITIONAL = "conditional"
SECOND = "second"
# Chains with a hook, and chains whose rules come with the table and subnets, not with owners.
HOOKED = ("prerouting", "output", "postrouting")
SUBNET_CHAINS = ("hairpin", "leaving", "gateways")
_OWN_CHAINS = (*HOOKED, "host_ports", *SUBNET_CHAINS)

_WORDS = {
    IPV4: {"ip": "ip", "addr": "ipv4_addr", "multicast": "224.0.0.0/4"},
    IPV6: {"ip": "ip6", "addr": "ipv6_addr", "multicast": "ff00::/8"},
}
# A port that only some clients reach is not published for the others: `accept` leaves their packets to the
# host. The host's own packets come through no link ("iif"), whatever source address a neighbour forges.
_TABLE_TEXT = """
create table {ip} pycni
add map {ip} pycni ports {{ type inet_proto . inet_service : {addr} . inet_service; }}
add map {ip} pycni host_ip_ports {{ type {addr} . inet_proto . inet_service : {addr} . inet_service; }}
add set {ip} pycni masquerade_all {{ type {addr} . inet_proto . inet_service; }}
add set {ip} pycni restricted {{ type inet_proto . inet_service; }}
add set {ip} pycni clients {{ type inet_proto . inet_service . {addr}; flags interval; }}
add set {ip} pycni host_ip_restricted {{ type {addr} . inet_proto . inet_service; }}
add set {ip} pycni host_ip_clients {{ type {addr} . inet_proto . inet_service . {addr}; flags interval; }}
add set {ip} pycni not_masqueraded {{ type {addr} . {addr}; flags interval; }}
add set {ip} pycni records {{ type inet_service; }}
add element {ip} pycni records {{ 0 comment "{records}" }}
add chain {ip} pycni conditional
add chain {ip} pycni second
add chain {ip} pycni gateways
add chain {ip} pycni host_ports
add chain {ip} pycni prerouting {{ type nat hook prerouting priority -100; policy accept; }}
add chain {ip} pycni output {{ type nat hook output priority -100; policy accept; }}
add chain {ip} pycni hairpin
add chain {ip} pycni leaving
add chain {ip} pycni postrouting {{ type nat hook postrouting priority 100; policy accept; }}
add rule {ip} pycni host_ports jump conditional
add rule {ip} pycni host_ports iif != 0 {ip} daddr . meta l4proto . th dport @host_ip_restricted \
{ip} daddr . meta l4proto . th dport . {ip} saddr != @host_ip_clients accept
add rule {ip} pycni host_ports dnat {ip} to {ip} daddr . meta l4proto . th dport map @host_ip_ports
add rule {ip} pycni host_ports jump gateways
add rule {ip} pycni host_ports iif != 0 meta l4proto . th dport @restricted \
meta l4proto . th dport . {ip} saddr != @clients accept
add rule {ip} pycni host_ports dnat {ip} to meta l4proto . th dport map @ports
add rule {ip} pycni host_ports jump second
add rule {ip} pycni prerouting fib daddr type local jump host_ports
add rule {ip} pycni output fib daddr type local jump host_ports
add rule {ip} pycni hairpin {ip} daddr . meta l4proto . th dport @masquerade_all masquerade
add rule {ip} pycni postrouting ct status dnat jump hairpin
add rule {ip} pycni postrouting {ip} daddr {multicast} return
add rule {ip} pycni postrouting {ip} saddr . {ip} daddr @not_masqueraded return
add rule {ip} pycni postrouting jump leaving
"""
# Traffic of containers to their own gateway is for the host, whatever ports others publish: `accept` ends its
# way through this table, not through others. A neighbour that connects to a published port of the host must
# get replies from the host, and so must the host itself from a loopback address.
_SUBNET_TEXT = """
create set {ip} pycni {hairpin} {{ type {addr} . inet_proto . inet_service; }}
add set {ip} pycni {gateway} {{ type {addr}; }}
add rule {ip} pycni gateways {ip} saddr {subnet} {ip} daddr @{gateway} fib saddr type != local \
accept comment "{subnet}"
add set {ip} pycni {leaving} {{ type {addr}; }}
add rule {ip} pycni hairpin {ip} saddr {subnet} {ip} daddr . meta l4proto . th dport @{hairpin} \
masquerade comment "{subnet}"
add rule {ip} pycni leaving {ip} saddr @{leaving} {ip} daddr != {subnet} masquerade comment "{subnet}"
"""
_LOOPBACK_TEXT = """
add rule ip pycni hairpin ip saddr 127.0.0.0/8 ip daddr . meta l4proto . th dport @{hairpin} \
masquerade comment "{subnet}"
"""


class Shared(NamedTuple):
    """A shared object: the table of a family or, with `subnet`, the sets and rules of that subnet."""

    family: int
    subnet: str = ""


def family_of(network: IpNetwork) -> int:
    """Return the nf_tables family of a subnet."""
    return IPV4 if isinstance(network, IPv4Network) else IPV6


def hairpin_set(subnet: str) -> str:
    """Return the set of (container address, protocol, container port) with masqueraded neighbours."""
    return "hairpin-" + subnet.replace(":", "-")


def leaving_set(subnet: str) -> str:
    """Return the name of the set of container addresses that are masqueraded when they leave the subnet."""
    return "leaving-" + subnet.replace(":", "-")


def gateway_set(subnet: str) -> str:
    """Return the name of the set of the gateways of a subnet, which all its containers share."""
    return "gateway-" + subnet.replace(":", "-")


def is_shared_set(name: str) -> bool:
    """Return whether a set's elements have no owner."""
    return name.startswith("gateway-")


def subnet_sets(subnet: str) -> tuple[str, ...]:
    """Return the sets of a subnet: those whose elements have owners, then the one of the gateways."""
    return hairpin_set(subnet), leaving_set(subnet), gateway_set(subnet)


def rebuild_script(family: int, subnets: list[str], unhooked: list[str], records: str) -> str:
    """Return the nft script that restores missing parts of an existing table.

    Sets remain, rules are replaced. So are `unhooked` chains, to have their hook.
    """
    where = f"{_WORDS[family]['ip']} {TABLE}"
    text = "".join(setup_script(Shared(family, subnet), records) for subnet in ("", *subnets))
    lines = text.replace("create ", "add ").strip().splitlines()
    rules = [line for line in lines if line.startswith("add rule")]
    others = [line for line in lines if not line.startswith("add rule")]
    anew = [f"{word} chain {where} {name}" for name in unhooked for word in ("add", "flush", "delete")]
    flushed = [f"flush chain {where} {name}" for name in _OWN_CHAINS]
    return "\n".join([f"add table {where}", *anew, *others, *flushed, *rules, ""])


def setup_script(shared: Shared, records: str) -> str:
    """Return the nft script that makes a shared object; `records` identifies the folder of records."""
    words = _WORDS[shared.family]
    if not shared.subnet:
        return _TABLE_TEXT.format(**words, records=records)
    template = _SUBNET_TEXT + (_LOOPBACK_TEXT if shared.family == IPV4 else "")
    hairpin, leaving, gateway = subnet_sets(shared.subnet)
    names = {"hairpin": hairpin, "leaving": leaving, "gateway": gateway}
    return template.format(**words, **names, subnet=shared.subnet)
