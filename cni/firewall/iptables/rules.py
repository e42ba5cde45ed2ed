"""Render port forwards and masquerading for iptables as the Go plugins do, name for name. Pure.

So either suite can check and delete the rules of the other, and tools that read these chains (nerdctl, Lima)
continue to work. Some rules are not known to the Go plugins: those about `GATEWAYS`.
"""

from __future__ import annotations

import hashlib
import re
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cni.firewall.iptables.rule import (
    COMMENT,
    Jump,
    Own,
    Rendering,
    Rule,
    Shared,
    Wanted,
    group_words,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cni.firewall.intents import Gateway, Masquerade, Owner, PortForward, PortMapping
    from cni.firewall.iptables.rule import Match
    from cni.result import IpAddress, IpInterface

NAT = "nat"
POSTROUTING = "POSTROUTING"
DNAT = "CNI-HOSTPORT-DNAT"
SETMARK = "CNI-HOSTPORT-SETMARK"
MASQ = "CNI-HOSTPORT-MASQ"
# Releases before 0.7.0 of the Go plugins put their chains for source NAT here.
OLD_SNAT = "CNI-HOSTPORT-SNAT"
# The containers' chains jump here before their rules for ports that name no address.
GATEWAYS = "CNI-HOSTPORT-GATEWAYS"

_GATEWAY_PREFIX = "CNI-GW-"
_CHAIN_LENGTH = 28
_OF_CONTAINER = re.compile(r"CNI-((?!GW)[A-Z]{2}-)?[0-9a-f]{21,24}")
_PORTS_PER_RULE = 15
# XT_MAX_COMMENT_LEN without the final NUL; iptables cuts longer comments without an error.
_COMMENT_LENGTH = 255
# The comment of a rule that leaves to the host what comes from other clients than those of a port; the
# container's address follows.
_ONLY_CLIENTS = "only clients of the list reach "
# The host as a client: matches for source address and its type. The kernel drops what comes from a link with
# an IPv4 address of the host as its source, unless that begins with 127 and is not 127.0.0.1.
_LOCAL: Match = ("-m", "addrtype", "--src-type", "LOCAL")
_HOST_AS_CLIENT: dict[int, tuple[tuple[Match, Match], ...]] = {
    4: ((("-s", "127.0.0.1/32"), ()), (("!", "-s", "127.0.0.0/8"), _LOCAL)),
    6: (((), _LOCAL),),
}
_MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}
_COMMENT = re.compile(r'(?:[a-z]+ )?name: "(?P<network>[^"\\]*)" id: "(?P<container_id>[^"\\]*)')


def masquerade_chain(owner: Owner) -> str:
    """Return the name of the container's chain for masquerading on this network."""
    return owner_chain("CNI-", owner)


def forward_chain(owner: Owner) -> str:
    """Return the name of the container's chain for published ports on this network."""
    return owner_chain("CNI-DN-", owner)


def old_snat_chain(owner: Owner) -> str:
    """Return the name of the chain that Go plugins before 0.7.0 made beside the one for published ports."""
    return owner_chain("CNI-SN-", owner)


def owner_chain(prefix: str, owner: Owner) -> str:
    """Return the name of the container's chain on this network; GC knows prefixes "CNI-XX-"."""
    digest = hashlib.sha512(f"{owner.network}{owner.container_id}".encode()).hexdigest()
    return f"{prefix}{digest}"[:_CHAIN_LENGTH]


def is_containers(chain: str) -> bool:
    """Return whether a chain belongs to one container, by its name."""
    return bool(_OF_CONTAINER.fullmatch(chain))


def chain_prefix(chain: str) -> str:
    """Return the part of a container's chain that tells what it is for."""
    return f"{chain.rpartition('-')[0]}-"


def masquerade(intent: Masquerade, version: int) -> Wanted:
    """Render masquerading: the chain accepts first what is not masqueraded, as to the container's subnets."""
    chain = masquerade_chain(intent.owner)
    comment = owner_comment(intent.owner)
    found = [each for each in intent.addresses if each.version == version]
    subnets = dict.fromkeys(
        [*(each.network for each in found), *(each for each in intent.excepted if each.version == version)]
    )
    accepted = [Rule(NAT, chain, (("-d", str(subnet)), comment), ("ACCEPT",)) for subnet in subnets]
    others = Rule(NAT, chain, (("!", "-d", _MULTICAST[version]), comment), ("MASQUERADE",))
    entries = [
        Rule(NAT, POSTROUTING, (("-s", f"{address}/{address.max_prefixlen}"), comment), (chain,))
        for address in dict.fromkeys(each.ip for each in found)
    ]
    shared = gateway_chains(intent.gateways, version) if intent.gateways else []
    return Wanted(chain, tuple(accepted), tuple(entries), (others,), tuple(shared))


def port_forward(intent: PortForward, version: int) -> Wanted:
    """Render published ports."""
    return Wanted(
        forward_chain(intent.owner),
        tuple(_forward_rules(intent, version)),
        tuple(_forward_entries(intent, version)),
        shared=tuple(_shared_chains(intent, version)),
    )


def _shared_chains(intent: PortForward, version: int) -> list[Shared]:
    """Return the shared chains in the order in which the Go plugins make them."""
    chains = []
    if intent.snat and not intent.external_set_mark_chain:
        mark = f"{1 << intent.mark_bit:#x}/{1 << intent.mark_bit:#x}"
        comment = (*COMMENT, "CNI portfwd masquerade mark")
        chains += [
            Shared(SETMARK, (Rule(NAT, SETMARK, (comment,), ("MARK", "--set-xmark", mark)),), ()),
            Shared(
                MASQ, (Rule(NAT, MASQ, (("-m", "mark", "--mark", mark),), ("MASQUERADE",)),), (_MASQ_JUMP,)
            ),
        ]
    guards = gateway_chains(intent.gateways, version) if intent.gateways else []
    return [*chains, Shared(DNAT, (), _DNAT_JUMPS), *guards]


def gateway_chains(gateways: Sequence[Gateway], version: int) -> list[Shared]:
    """Return the chains that leave to the host what comes from a network to its gateway, of one family.

    Each gateway and subnet has a chain, so that one look-up shows whether it exists. The host itself may
    connect to published ports. `ACCEPT` ends the way through table nat, as DNAT does.
    """
    chains = [Shared(GATEWAYS, (), ())]
    found = [each for each in gateways if each.ip.version == version]
    for subnet in dict.fromkeys(each.network for each in found):
        matches = (("-s", str(subnet)), ("-m", "addrtype", "!", "--src-type", "LOCAL"))
        for ip in (each.ip for each in found):
            digest = hashlib.sha512(f"{subnet} {ip}".encode()).hexdigest()
            chain = f"{_GATEWAY_PREFIX}{digest}"[:_CHAIN_LENGTH]
            jump = Jump(Rule(NAT, GATEWAYS, (_host_address(ip),), (chain,)))
            accept = Rule(NAT, chain, matches, ("ACCEPT",))
            chains.append(Shared(chain, (accept,), (jump,), is_named_by_content=True))
    return chains


def _forward_rules(intent: PortForward, version: int) -> list[Rule]:
    """Return the rules of the container's own chain, of one family."""
    target = next((each for each in intent.targets if each.version == version), None)
    if target is None:
        return []
    chain = forward_chain(intent.owner)
    # First the ports that are published on one address of the host, which may be a gateway's.
    named, others = list[Rule](), list[Rule]()
    for each in intent.mappings:
        if each.host_ip is None or (each.host_ip.is_unspecified and each.host_ip.version == version):
            others += _mapping_rules(intent, chain, each, target)
        elif each.host_ip.version == version:
            named += _mapping_rules(intent, chain, each, target)
    # The Go plugins do not have this rule. Their CHECK and DEL ignore it.
    guard = [Rule(NAT, chain, (), (GATEWAYS,))] if others and intent.gateways else []
    return [*named, *guard, *others]


def _mapping_rules(
    intent: PortForward, chain: str, mapping: PortMapping, target: IpInterface
) -> Iterable[Rule]:
    matches: list[Match] = [("-p", mapping.protocol)]
    if mapping.host_ip is not None and not mapping.host_ip.is_unspecified:
        matches.insert(0, _host_address(mapping.host_ip))
    matches.append(("-m", mapping.protocol, "--dport", str(mapping.host_port)))
    address = f"[{target.ip}]" if target.version == 6 else str(target.ip)
    if intent.snat:
        sources: list[list[Match]] = [[]]
        if not intent.masq_all:
            # Replies to the container itself, and to the host as 127.0.0.1, need masquerading to find back.
            local = [("-s", "127.0.0.1/32")] if target.version == 4 else []
            sources = [[each] for each in [("-s", str(target.network)), *local]]
        mark = intent.external_set_mark_chain or SETMARK
        yield from (Rule(NAT, chain, (*source, *matches), (mark,)) for source in sources)
    to = ("DNAT", "--to-destination", f"{address}:{mapping.container_port}")
    clients = None if mapping.clients is None else mapping.clients_of(target.version)
    if clients is not None:
        # The Go plugins do not know these rules. Their CHECK asks for the last one, which no packet reaches.
        for client in (*((("-s", str(each)), ()) for each in clients), *_HOST_AS_CLIENT[target.version]):
            address_match, type_match = ((each,) if each else () for each in client)
            yield Rule(NAT, chain, (*address_match, *matches, *type_match), to)
        refusal = (*COMMENT, refusal_comment(target.ip))
        yield Rule(NAT, chain, (*matches, refusal), ("ACCEPT",))
    yield Rule(NAT, chain, tuple(matches), to)


def _forward_entries(intent: PortForward, version: int) -> list[Rule]:
    """Return the rules of the shared chain that lead to the container's own.

    They name the ports of all mappings, also those for host addresses of the other family, as Go's do.
    """
    comment = owner_comment(intent.owner, "dnat ")
    words = intent.conditions_v4 if version == 4 else intent.conditions_v6
    conditions = group_words(words) if words else ()
    ports: dict[str, list[str]] = {}
    for mapping in intent.mappings:
        ports.setdefault(mapping.protocol, []).append(str(mapping.host_port))
    groups = [
        (protocol, ",".join(listed[start : start + _PORTS_PER_RULE]))
        for protocol, listed in sorted(ports.items())
        for start in range(0, len(listed), _PORTS_PER_RULE)
    ]
    return [
        Rule(
            NAT,
            DNAT,
            (("-p", protocol), comment, ("-m", "multiport", "--dports", group), *conditions),
            (forward_chain(intent.owner),),
        )
        for protocol, group in groups
    ]


def find_owner(rule: Rule) -> tuple[str, str] | None:
    """Return the network and the container ID in a rule's comment, None without one. A long ID may be cut."""
    found = _COMMENT.match(rule.comment)
    return (found["network"], found["container_id"]) if found else None


def find_address(rule: Rule) -> IpAddress | None:
    """Return the container's address that a rule of its chain, or one that leads to the chain, names."""
    text = rule.comment.removeprefix(_ONLY_CLIENTS) if rule.comment.startswith(_ONLY_CLIENTS) else ""
    if rule.leads_to == "DNAT":
        text = rule.target[-1].rpartition(":")[0].strip("[]")
    elif rule.chain == POSTROUTING and is_containers(rule.leads_to):
        text = next((match[1].partition("/")[0] for match in rule.matches if match[0] == "-s"), "")
    return ip_address(text) if text else None


def refusal_comment(ip: IpAddress) -> str:
    """Return the comment of a rule that leaves to the host what others than the clients of a port send."""
    return f"{_ONLY_CLIENTS}{ip}"


def find_gateway(rule: Rule) -> str:
    """Return the address of the host in a rule of `GATEWAYS`."""
    return next((match[1].partition("/")[0] for match in rule.matches if match[0] == "-d"), "")


def find_mapping(rule: Rule) -> tuple[str, int, str] | None:
    """Return the protocol, port and address ("" for all) of the host that a rule publishes, if any."""
    words = {match[-2]: match[-1] for match in rule.matches if len(match) > 1}
    if rule.leads_to != "DNAT" or "-p" not in words or not words.get("--dport", "").isdecimal():
        return None
    return words["-p"], int(words["--dport"]), words.get("-d", "").partition("/")[0]


def _host_address(ip: IpAddress) -> Match:
    return "-d", f"{ip}/{ip.max_prefixlen}"


def owner_comment(owner: Owner, prefix: str = "") -> Match:
    """Return the comment that names a rule's owner; one with a prefix shows by dots that it is cut."""
    text = f'{prefix}name: "{owner.network}" id: "{owner.container_id}"'
    if prefix and len(text) > _COMMENT_LENGTH:
        text = f"{text[: _COMMENT_LENGTH - 2]}..."
    return *COMMENT, text[:_COMMENT_LENGTH]


_MASQ_JUMP = Jump(
    Rule(NAT, POSTROUTING, ((*COMMENT, "CNI portfwd requiring masquerade"),), (MASQ,)), first=True
)
_DNAT_JUMPS = tuple(
    Jump(Rule(NAT, chain, (("-m", "addrtype", "--dst-type", "LOCAL"),), (DNAT,)))
    for chain in ("PREROUTING", "OUTPUT")
)

FORWARD = Rendering(
    NAT,
    "dnat",
    ("PREROUTING", DNAT),
    port_forward,
    lambda owner: (Own(forward_chain(owner), DNAT), Own(old_snat_chain(owner), OLD_SNAT)),
)
MASQUERADE = Rendering(
    NAT,
    "masquerade",
    (POSTROUTING,),
    masquerade,
    lambda owner: (Own(masquerade_chain(owner), POSTROUTING),),
)
