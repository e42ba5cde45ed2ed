"""Links of kind macvlan: a MAC address of its own on the network of the link below.

`link.create` takes what `settings` returns, with the index of the link below as `link.LINK`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cni.kernel.attributes import attributes, number, shown_number

if TYPE_CHECKING:
    from cni.kernel.link import Link

KIND = "macvlan"
# IFLA_MACVLAN_*, <linux/if_link.h>
_MODE, _QUEUE_LENGTH = 1, 7
MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
_MODE_NAMES = {value: name for name, value in MODES.items()}


class Settings(NamedTuple):
    """The settings of a macvlan link; `mode` is a name of `MODES`, or the kernel's number for another one."""

    mode: str
    queue_length: int


def settings(mode: str, queue_length: int = 0) -> bytes:
    """Return the settings of a new link; `queue_length` 0 leaves the broadcast queue to the kernel."""
    return number(_MODE, MODES[mode]) + (number(_QUEUE_LENGTH, queue_length) if queue_length else b"")


def describe(own: Link) -> Settings:
    """Return the settings of a link of this kind."""
    data = attributes(own.data, {_MODE, _QUEUE_LENGTH})
    mode = shown_number(data.get(_MODE, b""))
    return Settings(_MODE_NAMES.get(mode, str(mode)), shown_number(data.get(_QUEUE_LENGTH, b"")))
