"""Links of kind ipvlan: IP addresses of its own behind the MAC address of the link below.

`link.create` takes what `settings` returns, with the index of the link below as `link.LINK`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from cni.kernel.attributes import attribute, attributes, shown_number

if TYPE_CHECKING:
    from cni.kernel.link import Link

KIND = "ipvlan"
# IFLA_IPVLAN_MODE, <linux/if_link.h>: a number of 16 bits
_MODE = 1
MODES = {"l2": 0, "l3": 1, "l3s": 2}
_MODE_NAMES = {value: name for name, value in MODES.items()}


def settings(mode: str) -> bytes:
    """Return the settings of a new link of a mode of `MODES`."""
    return attribute(_MODE, struct.pack("=H", MODES[mode]))


def describe(own: Link) -> str:
    """Return the mode of a link of this kind, the kernel's number if it is none of `MODES`."""
    mode = shown_number(attributes(own.data, {_MODE}).get(_MODE, b""))
    return _MODE_NAMES.get(mode, str(mode))
