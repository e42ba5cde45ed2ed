"""The rules of `admission` for iptables. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.firewall.iptables.rule import Jump, Own, Rendering, Rule, Shared, Wanted, comment_match
from cni.firewall.iptables.rules import owner_chain
from cni_dnsname.admission import FILTER, HOOK, PREFIX, SHARED

if TYPE_CHECKING:
    from cni.firewall.intents import Owner
    from cni_dnsname.admission import Queries

_COMMENT = comment_match("CNI names of containers")


def _chain(owner: Owner) -> str:
    return owner_chain(PREFIX, owner)


def _wanted(intent: Queries, version: int) -> Wanted:
    chain = _chain(intent.owner)
    comment = comment_match(f"names of {intent.owner.network}")
    length = 32 if version == 4 else 128
    gateways = [each for each in intent.gateways if (":" in each) == (version == 6)]
    subnets = [each for each in intent.subnets if (":" in each) == (version == 6)]
    rules = [
        Rule(
            FILTER,
            chain,
            (("-s", subnet), ("-d", f"{gateway}/{length}"), ("-p", protocol), _port(protocol), comment),
            ("ACCEPT",),
        )
        for gateway in gateways
        for subnet in subnets
        for protocol in ("udp", "tcp")
    ]
    jump = Jump(Rule(FILTER, HOOK, (_COMMENT,), (SHARED,)), first=True)
    entry = Rule(FILTER, SHARED, (comment,), (chain,))
    return Wanted(chain, tuple(rules), (entry,), shared=(Shared(SHARED, (), (jump,)),))


def _port(protocol: str) -> tuple[str, ...]:
    return ("-m", protocol, "--dport", "53")


RENDERING = Rendering(FILTER, "names", (HOOK, SHARED), _wanted, lambda owner: (Own(_chain(owner), SHARED),))
