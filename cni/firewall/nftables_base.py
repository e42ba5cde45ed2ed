"""What all attachments share in nftables: a table per family, two sets and two rules per subnet.

A packet costs a look-up in a hash, whatever the number of containers, and so does an attachment: it is
elements only. Maps of verdicts would need no rule per subnet, but with each new element the kernel
validates all others again (0.8 ms at 10 000 of them). Each transaction begins with `create`, so that of calls
at the same time one makes the thing and the others find it made.
"""

from __future__ import annotations

from ipaddress import IPv4Network, ip_network
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code, KernelError
from cni.firewall import nft
from cni.firewall import nftables_elements as elements
from cni.firewall import nftables_records as records
from cni.firewall.nftables_elements import TABLE
from cni.nfnetlink import ChangedMeanwhileError, kept

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cni.nfnetlink import Message
    from cni.result import IpNetwork

FAMILIES = (nft.IPV4, nft.IPV6)
# Host ports of all local addresses, and those of one.
PORTS = "ports"
HOST_IP_PORTS = "host_ip_ports"
MASQUERADE_ALL = "masquerade_all"
# Its one element tells, as comment, which folder has had the records since the table was made.
RECORDS = "records"
CONDITIONAL = "conditional"

_WORDS = {
    nft.IPV4: {"ip": "ip", "addr": "ipv4_addr", "multicast": "224.0.0.0/4"},
    nft.IPV6: {"ip": "ip6", "addr": "ipv6_addr", "multicast": "ff00::/8"},
}
_TABLE_TEXT = """
create table {ip} pycni
add map {ip} pycni ports {{ type inet_proto . inet_service : {addr} . inet_service; }}
add map {ip} pycni host_ip_ports {{ type {addr} . inet_proto . inet_service : {addr} . inet_service; }}
add set {ip} pycni masquerade_all {{ type {addr} . inet_proto . inet_service; }}
add set {ip} pycni records {{ type inet_service; }}
add element {ip} pycni records {{ 0 comment "{records}" }}
add chain {ip} pycni conditional
add chain {ip} pycni host_ports
add chain {ip} pycni prerouting {{ type nat hook prerouting priority -100; policy accept; }}
add chain {ip} pycni output {{ type nat hook output priority -100; policy accept; }}
add chain {ip} pycni hairpin
add chain {ip} pycni leaving
add chain {ip} pycni postrouting {{ type nat hook postrouting priority 100; policy accept; }}
add rule {ip} pycni host_ports jump conditional
add rule {ip} pycni host_ports dnat {ip} to {ip} daddr . meta l4proto . th dport map @host_ip_ports
add rule {ip} pycni host_ports dnat {ip} to meta l4proto . th dport map @ports
add rule {ip} pycni prerouting fib daddr type local jump host_ports
add rule {ip} pycni output fib daddr type local jump host_ports
add rule {ip} pycni hairpin {ip} daddr . meta l4proto . th dport @masquerade_all masquerade
add rule {ip} pycni postrouting ct status dnat jump hairpin
add rule {ip} pycni postrouting {ip} daddr {multicast} return
add rule {ip} pycni postrouting jump leaving
"""
# How many rules and jumps hold each chain when it is whole; more may come with subnets and conditions.
_LEAST_USE = {
    "prerouting": 1, "output": 1, "host_ports": 5, "conditional": 1,
    "postrouting": 3, "hairpin": 2, "leaving": 1,
}  # fmt: skip
_HOOKED = {"prerouting", "output", "postrouting"}

# A neighbour that dials a published port of the host must get its answer from the host; so must the host
# itself when it came from a loopback address.
_SUBNET_TEXT = """
create set {ip} pycni {hairpin} {{ type {addr} . inet_proto . inet_service; }}
add set {ip} pycni {leaving} {{ type {addr}; }}
add rule {ip} pycni hairpin {ip} saddr {subnet} {ip} daddr . meta l4proto . th dport @{hairpin} \
masquerade comment "{subnet}"
add rule {ip} pycni leaving {ip} saddr @{leaving} {ip} daddr != {subnet} masquerade comment "{subnet}"
"""
_LOOPBACK_TEXT = """
add rule ip pycni hairpin ip saddr 127.0.0.0/8 ip daddr . meta l4proto . th dport @{hairpin} \
masquerade comment "{subnet}"
"""
_TRIES = 50


class Shared(NamedTuple):
    """A shared thing: the table of a family or, with `subnet`, what there is for that subnet."""

    family: int
    subnet: str = ""


def family_of(network: IpNetwork) -> int:
    """Give the nf_tables family of a subnet."""
    return nft.IPV4 if isinstance(network, IPv4Network) else nft.IPV6


def hairpin_set(subnet: str) -> str:
    """Name the set of (container address, protocol, container port) whose neighbours are masqueraded."""
    return "hairpin-" + subnet.replace(":", "-")


def leaving_set(subnet: str) -> str:
    """Name the set of container addresses that are masqueraded when they leave the subnet."""
    return "leaving-" + subnet.replace(":", "-")


def ensure(subnets: Iterable[IpNetwork], made: list[Shared]) -> None:
    """Make what these subnets need; `made` learns what was missing, before it is made."""
    wanted = list(subnets)
    for _ in range(_TRIES):
        missing = list(_missing(wanted))
        if not missing:
            return
        made += missing
        # Refused as a whole if somebody else has just made part of it: then less is missing.
        nft.run_text("".join(map(_text, missing)), "set up nftables")
    raise CniError(Code.TRY_AGAIN, "could not set up nftables: others kept removing it")


def _missing(subnets: list[IpNetwork]) -> Iterator[Shared]:
    for family in dict.fromkeys(map(family_of, subnets)):
        if not nft.has_table(family, TABLE):
            yield Shared(family)
        sets = elements.list_sets(family)
        for subnet in subnets:
            if family_of(subnet) == family and hairpin_set(str(subnet)) not in sets:
                yield Shared(family, str(subnet))


def _text(shared: Shared) -> str:
    words = _WORDS[shared.family]
    if not shared.subnet:
        return _TABLE_TEXT.format(**words, records=records.identity())
    template = _SUBNET_TEXT + (_LOOPBACK_TEXT if shared.family == nft.IPV4 else "")
    names = {"hairpin": hairpin_set(shared.subnet), "leaving": leaving_set(shared.subnet)}
    return template.format(**words, **names, subnet=shared.subnet)


def has_complete_records() -> bool:
    """Tell whether every owner that has elements has a record here: one without needs no search then.

    Not so when the folder was emptied or lies in another mount namespace than that of who made the table.
    """
    return all(_has_complete_records(family) for family in FAMILIES)


def _has_complete_records(family: int) -> bool:
    found = elements.find(elements.Element(family, RECORDS, bytes(2)))
    if found is None:
        return not nft.has_table(family, TABLE)
    return found.comment == (records.identity() or None)


def differences(family: int, subnet: IpNetwork) -> list[str]:
    """Tell what is missing of the shared part."""
    where = f"nftables table {nft.FAMILY_NAMES[family]} {TABLE}"
    if not nft.has_table(family, TABLE):
        return [f"{where} does not exist"]
    found = []
    for name, least in _LEAST_USE.items():
        chain = nft.find_chain(family, TABLE, name)
        if chain is None:
            found.append(f"chain {name} of {where} does not exist")
        elif chain.use < least or chain.has_hook is not (name in _HOOKED):
            found.append(f"chain {name} of {where} lacks rules or its hook")
    found += [
        f"chain {chain} of {where} has no rule for subnet {subnet}"
        for chain in ("hairpin", "leaving")
        if not any(rule.comment == str(subnet) for rule in nft.list_rules(family, TABLE, chain))
    ]
    return found


def list_shared() -> list[Shared]:
    """List the tables and subnets that are set up, in use or not."""
    return [
        shared
        for family in FAMILIES
        if nft.has_table(family, TABLE)
        for shared in (*map(Shared, [family]), *_subnets(family))
    ]


def _subnets(family: int) -> list[Shared]:
    prefix = "leaving-"
    names = (name.removeprefix(prefix) for name in elements.list_sets(family) if name.startswith(prefix))
    separator = ":" if family == nft.IPV6 else "."
    return [Shared(family, str(ip_network(name.replace("-", separator)))) for name in names]


def remove_unused(candidates: Iterable[Shared]) -> None:
    """Take away those of the shared things that nobody uses; what comes into use meanwhile stays."""
    wanted = list(candidates)
    for _ in range(_TRIES):
        number = nft.generation()
        try:
            kept().commit([message for family in FAMILIES for message in _removal(family, wanted)], number)
        except ChangedMeanwhileError:
            continue
        else:
            return


def _removal(family: int, wanted: list[Shared]) -> list[Message]:
    subnets = [each for each in wanted if each.family == family and each.subnet]
    sets = elements.list_sets(family) if nft.has_table(family, TABLE) else []
    unused = [subnet for _, subnet in subnets if hairpin_set(subnet) in sets and not _is_used(family, subnet)]
    others = set(sets) - {name for subnet in unused for name in (hairpin_set(subnet), leaving_set(subnet))}
    if Shared(family) in wanted and sets and not _is_table_used(family, others):
        return [nft.delete_table(family, TABLE)]
    return [message for subnet in unused for message in _subnet_removal(family, subnet)]


def _is_used(family: int, subnet: str) -> bool:
    return not all(elements.is_empty(family, name) for name in (hairpin_set(subnet), leaving_set(subnet)))


def _is_table_used(family: int, sets: set[str]) -> bool:
    # A set of a subnet that is not to go counts as use, an empty one too.
    shared = {PORTS, HOST_IP_PORTS, MASQUERADE_ALL}
    if sets - shared - {RECORDS} or nft.list_rules(family, TABLE, CONDITIONAL):
        return True
    return not all(elements.is_empty(family, name) for name in shared)


def _subnet_removal(family: int, subnet: str) -> list[Message]:
    rules = [
        nft.delete_rule(rule)
        for chain in ("hairpin", "leaving")
        for rule in nft.list_rules(family, TABLE, chain)
        if rule.comment == subnet
    ]
    return [
        *rules,
        *(elements.delete_set(family, name) for name in (hairpin_set(subnet), leaving_set(subnet))),
    ]


def unusable_because() -> str:
    """Tell why nftables cannot work here, "" when it can."""
    from cni import process

    if process.find("nft") is None:
        return "nft is not installed"
    try:
        nft.generation()
    except KernelError as error:
        if error.errno in {1, 13}:
            return "nftables may not be used: CAP_NET_ADMIN is missing"
        return f"the kernel has no nftables: {error.msg}"
    except CniError as error:
        return error.msg if error.code == Code.FIREWALL else str(error)
    return ""
