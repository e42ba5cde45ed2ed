"""Links of kind vlan: the frames of the link below that have a VLAN ID, without the tag.

`link.create` takes what `settings` returns, with the index of the link below as `link.LINK`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from cni.kernel.attributes import attribute, attributes, shown_number

if TYPE_CHECKING:
    from cni.kernel.link import Link

KIND = "vlan"
# IFLA_VLAN_ID, <linux/if_link.h>: a number of 16 bits
_ID = 1


def settings(vid: int) -> bytes:
    """Return the settings of a new link with a VLAN ID."""
    return attribute(_ID, struct.pack("=H", vid))


def describe(own: Link) -> int:
    """Return the VLAN ID of a link of this kind."""
    return shown_number(attributes(own.data, {_ID}).get(_ID, b""))
