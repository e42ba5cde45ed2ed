"""Intents as iptables rules, name for name as the Go plugins write them. Pure.

So either suite can check and remove what the other one made, and the tools that read these chains
(nerdctl, Lima) go on working. A rule is written as `iptables -S` prints it: what is wanted and what is
there compare as text.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.firewall.intents import Gateway, Masquerade, Owner, PortForward, PortMapping
    from cni.result import IpAddress, IpInterface, IpNetwork

DNAT = "CNI-HOSTPORT-DNAT"
SETMARK = "CNI-HOSTPORT-SETMARK"
MASQ = "CNI-HOSTPORT-MASQ"
# Where releases before 0.7.0 of the Go plugins hooked their source NAT chains.
OLD_SNAT = "CNI-HOSTPORT-SNAT"
# Where containers' chains look before they send on what names no address: not known to the Go plugins.
GATEWAYS = "CNI-HOSTPORT-GATEWAYS"

_GATEWAY_PREFIX = "CNI-GW-"
_CHAIN_LENGTH = 28
_OF_CONTAINER = re.compile(r"CNI-(DN-|SN-)?[0-9a-f]{21,24}")
_DESTINATION = re.compile(r"-d ([0-9a-f.:]+)/\d+ ")
_PORTS_PER_RULE = 15
# XT_MAX_COMMENT_LEN less the final NUL; iptables cuts off the rest without a word.
_COMMENT_LENGTH = 255
_MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}
_COMMENT = re.compile(
    r'--comment "(?:[a-z]+ )?name: \\"(?P<network>[^"\\]*)\\" id: \\"(?P<container_id>[^"\\]*)'
)


class Rule(NamedTuple):
    """A rule of table nat: its chain and what follows the chain in "-A CHAIN ..."."""

    chain: str
    spec: str

    @property
    def line(self) -> str:
        """The rule as `iptables -S` prints it."""
        return f"-A {self.chain} {self.spec}"

    def as_command(self, command: str) -> str:
        """Give the line of a transaction: "-A", "-D" or "-C", or "-I" to put the rule first."""
        position = " 1" if command == "-I" else ""
        return f"{command} {self.chain}{position} {self.spec}"


def parse_rule(line: str) -> Rule | None:
    """Read one line of `iptables -S`; None when it is no rule (a chain, a policy)."""
    words = line.split(" ", 2)
    return Rule(words[1], words[2]) if len(words) == 3 and words[0] == "-A" else None


class Jump(NamedTuple):
    """A built-in chain's way into a shared chain; `first` when it must come before what is there."""

    rule: Rule
    first: bool = False


class Shared(NamedTuple):
    """A chain that all published ports use, its content and the jumps to it."""

    chain: str
    rules: tuple[Rule, ...]
    jumps: tuple[Jump, ...]


def masquerade_chain(owner: Owner) -> str:
    """Give the name of the container's chain for masquerading on this network."""
    return _hashed("CNI-", owner)


def forward_chain(owner: Owner) -> str:
    """Give the name of the container's chain for published ports on this network."""
    return _hashed("CNI-DN-", owner)


def old_snat_chain(owner: Owner) -> str:
    """Give the name of the chain that Go plugins before 0.7.0 made beside the one for published ports."""
    return _hashed("CNI-SN-", owner)


def _hashed(prefix: str, owner: Owner) -> str:
    digest = hashlib.sha512(f"{owner.network}{owner.container_id}".encode()).hexdigest()
    return f"{prefix}{digest}"[:_CHAIN_LENGTH]


def is_containers(chain: str) -> bool:
    """Tell whether a chain is of one container, by its name."""
    return bool(_OF_CONTAINER.fullmatch(chain))


def is_of_gateway(chain: str) -> bool:
    """Return whether a chain is for one gateway and one subnet, by its name."""
    return chain.startswith(_GATEWAY_PREFIX)


def masquerade_rules(intent: Masquerade, version: int) -> list[Rule]:
    """Give the chain's rules: whatever goes to one of the container's subnets is accepted first."""
    chain = masquerade_chain(intent.owner)
    comment = _comment(_owner_text(intent.owner))
    subnets = dict.fromkeys(each.network for each in _of_family(intent.addresses, version))
    accepted = [Rule(chain, f"-d {subnet} {comment} -j ACCEPT") for subnet in subnets]
    return [*accepted, Rule(chain, f"! -d {_MULTICAST[version]} {comment} -j MASQUERADE")]


def masquerade_jumps(intent: Masquerade, version: int) -> list[Rule]:
    """Give the rules of POSTROUTING that lead to the chain, one for each address."""
    comment = _comment(_owner_text(intent.owner))
    chain = masquerade_chain(intent.owner)
    addresses = dict.fromkeys(each.ip for each in _of_family(intent.addresses, version))
    length = 32 if version == 4 else 128
    return [Rule("POSTROUTING", f"-s {address}/{length} {comment} -j {chain}") for address in addresses]


def shared_chains(intent: PortForward, version: int) -> list[Shared]:
    """Give the chains that must be there before the container's own, in the order in which Go makes them."""
    chains = []
    if intent.snat and not intent.external_set_mark_chain:
        mark = f"{1 << intent.mark_bit:#x}/{1 << intent.mark_bit:#x}"
        comment = _comment("CNI portfwd masquerade mark")
        chains += [
            Shared(SETMARK, (Rule(SETMARK, f"{comment} -j MARK --set-xmark {mark}"),), ()),
            Shared(MASQ, (Rule(MASQ, f"-m mark --mark {mark} -j MASQUERADE"),), (_MASQ_JUMP,)),
        ]
    guards = gateway_chains(intent.gateways, version) if intent.gateways else []
    return [*chains, Shared(DNAT, (), _DNAT_JUMPS), *guards]


def gateway_chains(gateways: Sequence[Gateway], version: int) -> list[Shared]:
    """Return the chains that leave to the host what comes from a network to its gateway, of one family.

    One chain for each gateway and subnet: that it is there shows in one look-up, whatever else is known.
    The host itself may ask for what is published. `ACCEPT` ends the way through table nat, as DNAT would.
    """
    found = [each for each in gateways if each.version == version]
    subnets = dict.fromkeys(each.network for each in found)
    return [
        Shared(GATEWAYS, (), ()),
        *(_gateway_chain(each.ip, subnet) for subnet in subnets for each in found),
    ]


def _gateway_chain(ip: IpAddress, subnet: IpNetwork) -> Shared:
    digest = hashlib.sha512(f"{subnet} {ip}".encode()).hexdigest()
    chain = f"{_GATEWAY_PREFIX}{digest}"[:_CHAIN_LENGTH]
    rule = Rule(chain, f"-s {subnet} -m addrtype ! --src-type LOCAL -j ACCEPT")
    jump = Rule(GATEWAYS, f"-d {ip}/{ip.max_prefixlen} -j {chain}")
    return Shared(chain, (rule,), (Jump(jump),))


def forward_rules(intent: PortForward, version: int) -> list[Rule]:
    """Give the rules of the container's own chain, of one family."""
    targets = _of_family(intent.targets, version)
    if not targets:
        return []
    mappings = [each for each in intent.mappings if each.host_ip is None or each.host_ip.version == version]
    named, others = ([each for each in mappings if _has_address(each) is wanted] for wanted in (True, False))
    specs = [spec for each in named for spec in _mapping_specs(intent, each, targets[0])]
    # The Go plugins have no such rule, which neither their CHECK nor their DEL minds.
    specs += [f"-j {GATEWAYS}"] if others and intent.gateways else []
    specs += [spec for each in others for spec in _mapping_specs(intent, each, targets[0])]
    return [Rule(forward_chain(intent.owner), spec) for spec in specs]


def _has_address(mapping: PortMapping) -> bool:
    """Return whether a port is published on one address of the host, which may be a gateway's."""
    return mapping.host_ip is not None and not mapping.host_ip.is_unspecified


def _mapping_specs(intent: PortForward, mapping: PortMapping, target: IpInterface) -> list[str]:
    matches = []
    if mapping.host_ip is not None and not mapping.host_ip.is_unspecified:
        matches.append(f"-d {mapping.host_ip}/{mapping.host_ip.max_prefixlen}")
    matches += [f"-p {mapping.protocol} -m {mapping.protocol} --dport {mapping.host_port}"]
    match = " ".join(matches)
    address = f"[{target.ip}]" if target.version == 6 else str(target.ip)
    dnat = f"{match} -j DNAT --to-destination {address}:{mapping.container_port}"
    if not intent.snat:
        return [dnat]
    mark = f"{match} -j {intent.external_set_mark_chain or SETMARK}"
    if intent.masq_all:
        return [mark, dnat]
    # What comes from the container itself or, as 127.0.0.1, from the host would not find its way back.
    marked = [f"-s {target.network} {mark}"]
    if target.version == 4:
        marked.append(f"-s 127.0.0.1/32 {mark}")
    return [*marked, dnat]


def forward_entries(intent: PortForward, version: int) -> list[Rule]:
    """Give the rules of the shared chain that lead to the container's own.

    They name the ports of all mappings, those for host addresses of the other family too, as Go's do.
    """
    comment = _comment(f"dnat {_owner_text(intent.owner)}", cut=True)
    conditions = [_quote(each) for each in (intent.conditions_v4 if version == 4 else intent.conditions_v6)]
    tail = " ".join([*conditions, f"-j {forward_chain(intent.owner)}"])
    ports: dict[str, list[str]] = {}
    for mapping in intent.mappings:
        ports.setdefault(mapping.protocol, []).append(str(mapping.host_port))
    return [
        Rule(DNAT, f"-p {protocol} {comment} -m multiport --dports {','.join(group)} {tail}")
        for protocol in sorted(ports)
        for group in _groups(ports[protocol])
    ]


def _groups(ports: list[str]) -> list[list[str]]:
    return [ports[start : start + _PORTS_PER_RULE] for start in range(0, len(ports), _PORTS_PER_RULE)]


def find_owner(rule: Rule) -> tuple[str, str] | None:
    """Give (network, container ID) that the rule's comment names, None without one; a long ID may be cut."""
    found = _COMMENT.search(rule.spec)
    return (found["network"], found["container_id"]) if found else None


def find_gateway(rule: Rule) -> str:
    """Return the address of the host that a rule of `GATEWAYS` is for."""
    found = _DESTINATION.match(rule.spec)
    return found[1] if found else ""


def find_target(rule: Rule) -> str:
    """Give the chain or target that the rule ends in a jump to, "" when it has none."""
    head, separator, target = rule.spec.rpartition("-j ")
    return target if separator and (not head or head.endswith(" ")) else ""


def _of_family(interfaces: Sequence[IpInterface], version: int) -> list[IpInterface]:
    return [each for each in interfaces if each.version == version]


def _owner_text(owner: Owner) -> str:
    return f'name: "{owner.network}" id: "{owner.container_id}"'


def _comment(text: str, *, cut: bool = False) -> str:
    if cut and len(text) > _COMMENT_LENGTH:
        text = f"{text[: _COMMENT_LENGTH - 2]}..."
    return f"-m comment --comment {_quote(text[:_COMMENT_LENGTH])}"


def _quote(text: str) -> str:
    if re.fullmatch(r"[^\s\"'\\]+", text):
        return text
    escaped = re.sub(r"([\"'\\])", r"\\\1", text)
    return f'"{escaped}"'


_MASQ_JUMP = Jump(
    Rule("POSTROUTING", f"{_comment('CNI portfwd requiring masquerade')} -j {MASQ}"), first=True
)
_DNAT_JUMPS = tuple(
    Jump(Rule(chain, f"-m addrtype --dst-type LOCAL -j {DNAT}")) for chain in ("PREROUTING", "OUTPUT")
)
