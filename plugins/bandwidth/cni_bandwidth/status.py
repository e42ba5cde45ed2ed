"""STATUS: whether an ADD could limit a container now."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.firewall import stores
from cni.interface.pair import LOCK
from cni.kernel import ifb, link
from cni.operations.status import Reasons, trial
from cni_bandwidth import ifbs, shapes
from cni_bandwidth.plan import Shape

if TYPE_CHECKING:
    from cni.request import Request
    from cni_bandwidth.conf import BandwidthConf

_MEGABIT = 125_000


def status(conf: BandwidthConf, _request: Request) -> None:
    """Raise CniError 50 if the kernel lacks what limits need, or if the lock cannot be taken."""
    reasons = Reasons()
    reasons.attempt(_try, conf)
    reasons.attempt(stores.check_lock, LOCK)
    reasons.raise_any()


def _try(conf: BandwidthConf) -> None:
    """Limit two links of a new namespace, and redirect one to the other."""
    subnets = conf.named_subnets or ((ip_network("10.0.0.0/8"),) if conf.limits_named else ())
    shape = Shape(_MEGABIT, _MEGABIT, 25_000, subnets, conf.limits_named, peer_is_source=True)
    with trial() as nl:
        for name in ("one", "two"):
            if not ifb.create(nl, name, link.new_mac()):
                raise CniError(Code.NOT_AVAILABLE, "could not create an ifb in a new namespace")
        one, two = link.get_all(nl, ["one", "two"])
        shapes.limit(nl, one, shape)
        ifbs.redirect(nl, one, two)
