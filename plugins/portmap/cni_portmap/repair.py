"""Publish again what is not published any more: claims, rules, one sysctl."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.firewall import select
from cni.hostports import ledger
from cni.kernel import sysctl
from cni.operations.repair import Repaired
from cni_portmap.apply import WHAT, claimed, flush_connections, localhost_devices, route_localnet
from cni_portmap.check import list_claims, list_rules, list_settings

if TYPE_CHECKING:
    from cni.firewall.intents import PortForward
    from cni.undo import Undo
    from cni_portmap.apply import Place
    from cni_portmap.conf import PortmapConf


def repair(conf: PortmapConf, place: Place, intent: PortForward) -> Repaired:
    """Repair published ports; a port that another container has come to hold is not published again."""
    done = Repaired()
    done.attempt(partial(_claims, intent, place))
    if not done.failed:
        done.attempt(partial(_rules, conf, intent, place))
        done.attempt(partial(_settings, intent))
    return done


def _claims(intent: PortForward, place: Place, undo: Undo) -> str:
    if ledger.is_of_this_release(intent.owner) and not list_claims(intent, place.netns):
        return ""
    with claimed(intent, place, undo):
        return "claimed its host ports"


def _rules(conf: PortmapConf, intent: PortForward, place: Place, undo: Undo) -> str:
    if not list_rules(conf, intent):
        return ""
    backend = select.choose(conf.needed_backend, WHAT)
    # Again: a container without rules may lose its ports to another one.
    with claimed(intent, place, undo):
        backend.mend(intent.targets)
        backend.add_forward(intent, undo)
    # Packets that came meanwhile have made entries without a translation.
    flush_connections(intent.mappings)
    ports = ", ".join(f"{each.host_port}/{each.protocol}" for each in intent.mappings)
    return f"published {ports} with {backend.name}"


def _settings(intent: PortForward, _undo: Undo) -> str:
    missing = list(list_settings(intent))
    for device in localhost_devices(intent) if missing else ():
        sysctl.ensure(route_localnet(device), "1")
    return "let 127.0.0.1 through to the container" if missing else ""
