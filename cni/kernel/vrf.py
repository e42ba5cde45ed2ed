"""Links of kind vrf: a routing table of its own for the links that have it as their master.

`link.create` takes what `settings` returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.kernel.attributes import attributes, number, shown_number

if TYPE_CHECKING:
    from cni.kernel.link import Link

KIND = "vrf"
# IFLA_VRF_TABLE, <linux/if_link.h>
_TABLE = 1


def settings(table: int) -> bytes:
    """Return the settings of a new link with a routing table."""
    return number(_TABLE, table)


def describe(own: Link) -> int:
    """Return the routing table of a link of this kind."""
    return shown_number(attributes(own.data, {_TABLE}).get(_TABLE, b""))
