"""Repair: make missing rules again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.operations import properties
from cni_firewall.properties import list_properties

if TYPE_CHECKING:
    from cni.operations.repair import Repaired
    from cni.request import Request
    from cni_firewall.conf import FirewallConf


def repair(conf: FirewallConf, request: Request) -> Repaired:
    """Restore the rules of the attachment, and what it shares with others."""
    return properties.repair(list_properties(conf, request))
