"""DEL: withdraw the ports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import ErrorList
from cni.firewall import select
from cni.firewall.intents import FORWARD
from cni.hostports import ledger
from cni_portmap.plan import plan_mappings, plan_owner
from cni_portmap.ports import flush_connections

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.firewall.intents import Owner, PortMapping
    from cni.request import Request
    from cni_portmap.conf import PortmapConf


def delete(conf: PortmapConf, request: Request) -> None:
    """Withdraw all ports of the attachment; its network, container ID and ifname are enough."""
    remove_published(plan_owner(conf, request), plan_mappings(conf))


def remove_published(owner: Owner, mappings: Sequence[PortMapping] = ()) -> None:
    """Withdraw all ports of `owner`, whatever published them; `mappings` are those that the runtime names.

    The claims go last: a port whose rules remain must not be given to another container.
    """
    known = (*mappings, *ledger.list_held(owner))
    select.remove(owner, FORWARD)
    errors = ErrorList()
    errors.attempt(flush_connections, known)
    errors.attempt(ledger.release, owner)
    errors.raise_any()
