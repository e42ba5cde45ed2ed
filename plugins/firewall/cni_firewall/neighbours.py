"""Other containers on a bridge, of which this plugin has no note."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni import marks
from cni.kernel import link
from cni.kernel.rtnetlink import Netlink
from cni.request import Attachment

if TYPE_CHECKING:
    from cni.firewall.intents import Owner


def has_others(bridge: str, owner: Owner) -> bool:
    """Return whether a bridge has ports besides that of an attachment, which its DEL removes later."""
    with Netlink() as nl:
        found = link.find(nl, bridge)
        if found is None:
            return False
        listed = link.list_links(nl, found.index)
    own = marks.alias(owner.network, Attachment(owner.container_id, owner.ifname))
    known = [each for each in listed if each.alias == own]
    # The Go plugin's host ends have no alias: one of them may be that of the attachment.
    others = [each for each in listed if each not in known]
    return len(others) > (0 if known else 1)
