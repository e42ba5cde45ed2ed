"""Prepare a host before a measurement: other attachments, and firewall rules of other programs."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface
from typing import TYPE_CHECKING, Any

from bench import chain
from bench.containers import CONTAINER_PORT, fill
from bench.sides import IPTABLES, NFTABLES
from cni.firewall.intents import Gateway, Masquerade, Owner, PortForward, PortMapping
from cni.firewall.iptables import rules, transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bench.chain import Results
    from bench.containers import Container, Filling
    from bench.sides import Side
    from bench.stage import Stage

# Attachments between two reports of progress, and how many of them are made at once.
_STEP, _AT_ONCE = 40, 8
_WRITE_WITHIN_S = 120
_RESTORE = ("iptables-restore", "--noflush")
# Only packets for these would go through the many rules: others pay for a jump that is not taken.
_SUBNET = "172.16.0.0/12"
_HOOKS = {"nat": ("PREROUTING", "POSTROUTING"), "filter": ("FORWARD",)}


def steps_of(attachments: int) -> int:
    """Return how often `attach` reports progress."""
    return -(-attachments // _STEP)


def attach(stage: Stage, attachments: int, filling: Filling, progress: Callable[[str], None]) -> None:
    """Attach containers that stay, with the side's own plugins. Raises CallError, CommandError.

    The rules of iptables can be written apart, the very same for many containers at once: the kernel looks
    through all that there are with each change, so that one by one they take minutes for some thousands.
    """
    is_bare = filling.rules_apart and stage.side.backend == IPTABLES
    everyone = [fill(number, filling, is_bare=is_bare) for number in range(attachments)]
    networks: set[Gateway] = set()
    for at in range(0, attachments, _STEP):
        progress(f"{at:,} of {attachments:,} attachments")
        step = everyone[at : at + _STEP]
        stage.ensure_namespaces([each.netns for each in step if each.number % filling.per_namespace == 0])
        results = stage.call(_attach, stage.side, step)
        if is_bare:
            new = set(map(_gateway_of, results.values())) - networks
            text = "".join(_rules_of_network(stage, each) for each in new)
            text += "".join(_rules_of(each, result) for each, result in results.items())
            networks |= new
            stage.host.run(_RESTORE, f"*nat\n{text}COMMIT\n", timeout_s=_WRITE_WITHIN_S)


def _attach(side: Side, containers: Sequence[Container]) -> Results[Container]:
    results: Results[Container] = {}
    for at in range(0, len(containers), _AT_ONCE):
        results |= chain.add(side, containers[at : at + _AT_ONCE])[1]
    return results


def _gateway_of(result: Mapping[str, Any]) -> Gateway:
    [ip] = result["ips"]
    return Gateway(IPv4Address(ip["gateway"]), IPv4Interface(ip["address"]).network)


def _rules_of_network(stage: Stage, gateway: Gateway) -> str:
    # The network of the container that was attached and detached has them already.
    _, chain = rules.gateway_chains((gateway,), 4)
    if chain.chain in stage.host.run(["iptables-save", "-t", "nat"]):
        return ""
    lines = [
        f"-N {chain.chain}",
        *(each.line for each in chain.rules),
        *(each.rule.line for each in chain.jumps),
    ]
    return "\n".join(lines) + "\n"


def _rules_of(container: Container, result: Mapping[str, Any]) -> str:
    owner = Owner(container.network_name, container.container_id, container.ifname)
    targets = (IPv4Interface(result["ips"][0]["address"]),)
    ports = (PortMapping("tcp", container.port, CONTAINER_PORT),)
    forward = PortForward(owner, ports, targets, gateways=(_gateway_of(result),))
    lines = [
        *transaction.make_chain(rules.masquerade(Masquerade(owner, targets), 4)),
        *transaction.make_chain(rules.port_forward(forward, 4)),
    ]
    return "\n".join(lines) + "\n"


def write_foreign(stage: Stage, number: int) -> None:
    """Write rules of other programs into the firewall that the side uses, in chains of their own.

    Half of them are in nat, half in filter; one call of iptables-restore or nft makes all. Raises
    CommandError.
    """
    is_nft = stage.side.backend == NFTABLES
    text = "".join(_nft(number) if is_nft else _iptables(number))
    stage.host.run(["nft", "-f", "-"] if is_nft else _RESTORE, text, timeout_s=_WRITE_WITHIN_S)


def _iptables(count: int) -> Iterator[str]:
    for (table, hooks), numbers in zip(_HOOKS.items(), _halves(count), strict=True):
        yield f"*{table}\n:FOREIGN - [0:0]\n"
        for number in numbers:
            yield f"-A FOREIGN -d {_address(number)}/32 -p tcp -m tcp --dport 443 -j RETURN\n"
        for hook in hooks:
            yield f"-A {hook} -d {_SUBNET} -j FOREIGN\n"
        yield "COMMIT\n"


def _nft(count: int) -> Iterator[str]:
    yield "table ip foreign {\n"
    hooks = ("nat hook prerouting priority dstnat", "filter hook forward priority filter")
    for kind, numbers in zip(hooks, _halves(count), strict=True):
        name = kind.partition(" ")[0]
        yield f"chain {name}-rules {{\n"
        for number in numbers:
            yield f"ip daddr {_address(number)} tcp dport 443 return\n"
        yield f"}}\nchain {name} {{\ntype {kind}; policy accept;\nip daddr {_SUBNET} jump {name}-rules\n}}\n"
    yield "}\n"


def _halves(count: int) -> tuple[range, range]:
    return range(count // 2), range(count // 2, count)


def _address(number: int) -> str:
    return f"172.{16 + number // 62_500}.{number // 250 % 250}.{number % 250}"
