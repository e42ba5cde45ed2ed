"""The properties of published ports, which CHECK compares and repair restores."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.firewall import select
from cni.hostports import ledger
from cni.kernel import sysctl
from cni.operations import calls
from cni.operations.properties import Property
from cni_portmap.add import claimed, list_localhost_settings
from cni_portmap.delete import flush_connections
from cni_portmap.plan import PURPOSE, list_host_ends

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.firewall.intents import PortForward
    from cni.request import Request
    from cni.undo import Undo
    from cni_portmap.conf import PortmapConf

_SHOWN_PORTS = 8


def list_rules(conf: PortmapConf, request: Request, intent: PortForward) -> Iterator[Property]:
    """Yield a property for each rule that is missing."""
    brief = f"{'; '.join(_name_ports(intent))}: rules are missing"
    fix = partial(_add_rules, conf, request, intent)
    for each in select.differences(conf.needed_backend, PURPOSE, intent):
        yield Property("rule", "missing", "present", each, fix, brief)


def _add_rules(conf: PortmapConf, request: Request, intent: PortForward, undo: Undo) -> str:
    backend = select.choose(conf.needed_backend, PURPOSE)
    # Again: a container without rules may lose its ports to another one.
    host_ends = list_host_ends(request.required_prev_result())
    with claimed(intent, host_ends, request, undo):
        backend.rebuild(intent)
        backend.apply(intent, undo)
    # Packets that came meanwhile have made entries without a translation. The kernel takes 10 ms to list any.
    calls.once(flush_connections, intent.mappings)
    ports = ", ".join(f"{each.host_port}/{each.protocol}" for each in intent.mappings)
    return f"published {ports} with {backend.name}"


def list_settings(intent: PortForward) -> Iterator[Property]:
    """Yield the sysctls that let 127.0.0.1 through."""
    keys = list_localhost_settings(intent)
    fix = partial(_let_through, keys)
    for key in keys:
        value = sysctl.read(key)
        message = f"{key} is {value}, not 1: 127.0.0.1 on the host does not work"
        yield Property(key, value, "1", message, fix)


def _let_through(keys: list[str], _undo: Undo) -> str:
    for key in keys:
        sysctl.ensure(key, "1")
    return "let 127.0.0.1 through to the container"


def list_claims(request: Request, intent: PortForward) -> Iterator[Property]:
    """Yield what differs in the ledger of host ports; nothing of ports that the Go plugin has published."""
    fix = partial(claim, request, intent)
    for each in ledger.differences(intent.owner, intent.mappings, request.netns):
        yield Property("claim", "different", "recorded", each, fix)


def claim(request: Request, intent: PortForward, undo: Undo) -> str:
    """Claim the host ports, and return what was done. Raise CniError 103 if another container holds one."""
    with claimed(intent, list_host_ends(request.required_prev_result()), request, undo):
        return "claimed its host ports"


def _name_ports(intent: PortForward) -> list[str]:
    """Return each published port with its destination; of many, the first ones and how many more."""
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
