"""Compare the rules of an attachment with what its ADD makes.

Functions import the backend that is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni_firewall import uses
from cni_firewall.conf import FIREWALLD, IPTABLES, NFTABLES
from cni_firewall.plan import GO_ISOLATED, GO_SAME_BRIDGE, KNOWN

if TYPE_CHECKING:
    from cni_firewall.attachment import Choice
    from cni_firewall.plan import Plan


def find(plan: Plan, choice: Choice) -> list[str]:
    """Return what is missing or wrong of an attachment's rules."""
    found = []
    if choice.backend == IPTABLES:
        from cni_firewall import iptables

        found += iptables.differences(plan, choice.admin_chain)
    elif choice.backend == FIREWALLD:
        from cni_firewall import firewalld

        found += firewalld.differences(plan.addresses, choice.zone, choice.bus)
    go = [each for each in plan.policies if each in {GO_SAME_BRIDGE, GO_ISOLATED}]
    admits = choice.backend == NFTABLES
    if admits or {*plan.policies} - {KNOWN, *go} or plan.allow:
        from cni_firewall import nftables

        with uses.locked():
            found += nftables.differences(plan, admits=admits)
    for policy in go:
        from cni_firewall import iptables

        found += iptables.isolation_differences(plan, policy)
    return found


def rebuild(choice: Choice) -> None:
    """Restore what attachments share: elements of links, and ways through tables that drop."""
    from cni_firewall import nftables

    with uses.locked():
        if nftables.exists():
            nftables.restore_links()
            if choice.backend == NFTABLES:
                from cni_firewall import gates

                gates.ensure()
