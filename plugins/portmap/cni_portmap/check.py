"""Compare what is there with what ADD makes; only reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.firewall import select
from cni.hostports import ledger
from cni.kernel import bridge, link, sysctl
from cni.kernel.rtnetlink import Netlink
from cni.log import note
from cni_portmap.apply import WHAT, localhost_devices, route_localnet

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cni.firewall.intents import PortForward
    from cni_portmap.conf import PortmapConf

_SHOWN_PORTS = 8


def check(
    conf: PortmapConf, netns: str, intent: PortForward, host_ends: Sequence[str], *, brief: bool = False
) -> None:
    """Raise CniError 104 that tells all that differs; hints come behind, or alone to stderr.

    `brief` names ports instead of rules, as `pycni repair` shows it to people.
    """
    if not ledger.is_of_this_release(intent.owner):
        # Neither the Go plugin nor the first release keeps published ports from the gateway.
        intent = intent._replace(gateways=())
    rules = list_rules(conf, intent)
    if rules and brief:
        raise CniError(
            Code.MISMATCH,
            f"{'; '.join(_name_ports(intent))}: rules are missing",
            "; ".join([*list_settings(intent), *list_claims(intent, netns)]),
        )
    found = [*rules, *list_settings(intent), *list_claims(intent, netns)]
    hints = list(_list_hints(host_ends))
    if found:
        raise CniError(Code.MISMATCH, f"could not check {found[0]}", "; ".join([*found[1:], *hints]))
    if not ledger.list_held(intent.owner):
        hints.append("its host ports are not claimed, as another suite published them: pycni repair does")
    for hint in hints:
        note(f"portmap: {hint}")


def _name_ports(intent: PortForward) -> list[str]:
    """Return each published port with where it leads; of many the first ones and their number."""
    found = []
    for each in intent.mappings:
        host = f"[{each.host_ip}]:" if each.host_ip and each.host_ip.version == 6 else f"{each.host_ip}:"
        for target in intent.targets:
            if each.host_ip is None or each.host_ip.version == target.version:
                address = f"[{target.ip}]" if target.version == 6 else str(target.ip)
                source = f"{host if each.host_ip else ''}{each.host_port}/{each.protocol}"
                found.append(f"port {source} -> {address}:{each.container_port}")
    more = [f"{len(found) - _SHOWN_PORTS} more ports"] if len(found) > _SHOWN_PORTS else []
    return found[:_SHOWN_PORTS] + more


def list_rules(conf: PortmapConf, intent: PortForward) -> list[str]:
    """Tell what the backend misses, unless the other one has it: ADD may have had another choice."""
    chosen = select.choose(conf.needed_backend, WHAT)
    missing = chosen.differences_forward(intent)
    for name in select.NAMES if missing else ():
        if name == chosen.name:
            continue
        other = select.choose(name, WHAT)
        if not other.unusable_because() and not other.differences_forward(intent):
            return []
    return missing


def list_settings(intent: PortForward) -> Iterator[str]:
    """Tell which settings of the kernel differ."""
    for device in localhost_devices(intent):
        key = route_localnet(device)
        value = sysctl.read(key)
        if value != "1":
            yield f"{key} is {value}, not 1: 127.0.0.1 on the host does not work"


def list_claims(intent: PortForward, netns: str) -> list[str]:
    """Tell what differs in the ledger of host ports; that it has nothing at all is the Go plugin's way."""
    return ledger.differences(intent.owner, intent.mappings, netns)


def _list_hints(host_ends: Sequence[str]) -> Iterator[str]:
    """Tell what keeps the container from its own published ports, if it is on a bridge."""
    with Netlink() as nl:
        found = [link.find(nl, name) for name in host_ends]
    for each in found:
        port = bridge.describe_port(each) if each else None
        if each and port and not port.hairpin:
            yield f"hairpinMode is off on {each.name}: the container cannot reach its own published ports"
