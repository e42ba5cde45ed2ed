"""CHECK: compare rules, settings and claims with what ADD makes."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from cni.errors import CniError
from cni.firewall import host_gateways
from cni.hostports import ledger
from cni.kernel import bridge, link
from cni.kernel.rtnetlink import Netlink
from cni.log import note
from cni.operations import properties
from cni.request import Verb
from cni_portmap.plan import list_host_ends, plan_forward
from cni_portmap.properties import list_claims, list_rules, list_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cni.request import Request
    from cni_portmap.conf import PortmapConf


def check(conf: PortmapConf, request: Request) -> None:
    """Raise CniError 104 if something differs; hints are part of its details, or alone are logged."""
    result = request.required_prev_result()
    intent = plan_forward(conf, request, result)
    if intent is None:
        return
    intent = host_gateways.without_others(intent)
    if not ledger.is_of_this_release(intent.owner):
        # Neither the Go plugin nor the first release keeps published ports from the gateway.
        intent = intent._replace(gateways=())
    rules = list(list_rules(conf, request, intent))
    listed = chain(rules, list_settings(intent), list_claims(request, intent))
    # `pycni` shows ports instead of rules to people.
    is_brief = request.verb is Verb.CHECK_ANY and bool(rules)
    hints = [] if is_brief else list(_list_hints(list_host_ends(result)))
    try:
        properties.check(listed, brief=is_brief, prefix="" if is_brief else "could not check ")
    except CniError as error:
        raise CniError(error.code, error.msg, "; ".join(filter(None, [error.details, *hints]))) from None
    if not ledger.list_held(intent.owner):
        hints.append("its host ports are not claimed, as another suite published them: pycni repair does")
    for hint in hints:
        note(f"portmap: {hint}")


def _list_hints(host_ends: Sequence[str]) -> Iterator[str]:
    """Yield what keeps a container on a bridge from its own published ports."""
    with Netlink() as nl:
        ends = [link.find(nl, name) for name in host_ends]
    for each in ends:
        port = bridge.describe_port(each) if each else None
        if each and port and not port.hairpin:
            yield f"hairpinMode is off on {each.name}: the container cannot reach its own published ports"
