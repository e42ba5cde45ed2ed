"""CHECK: compare the rules with what ADD makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.operations import properties
from cni.request import Verb
from cni_firewall.properties import list_properties

if TYPE_CHECKING:
    from cni.request import Request
    from cni_firewall.conf import FirewallConf


def check(conf: FirewallConf, request: Request) -> None:
    """Raise CniError 104 if a rule is missing."""
    properties.check(list_properties(conf, request), brief=request.verb is Verb.CHECK_ANY)
