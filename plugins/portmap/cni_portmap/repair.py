"""Repair: publish again what is not published any more."""

from functools import partial
from itertools import chain

from cni.firewall import host_gateways
from cni.hostports import ledger
from cni.operations import properties
from cni.operations.properties import Property
from cni.operations.repair import Repaired
from cni.request import Request
from cni_portmap.conf import PortmapConf
from cni_portmap.plan import plan_forward
from cni_portmap.properties import claim, list_claims, list_rules, list_settings


def repair(conf: PortmapConf, request: Request) -> Repaired:
    """Restore claims, then rules and settings unless another container has come to hold a port."""
    intent = plan_forward(conf, request, request.required_prev_result())
    if intent is None:
        return Repaired()
    intent = host_gateways.without_others(intent)
    # CHECK accepts an attachment of the Go plugin, which has no claim.
    is_ours = ledger.is_of_this_release(intent.owner)
    own = Property("claim of this release", is_ours, wanted=True, fix=partial(claim, request, intent))
    done = properties.repair(chain([own], list_claims(request, intent)))
    if not done.failed:
        done.extend(properties.repair(chain(list_rules(conf, request, intent), list_settings(intent))))
    return done
