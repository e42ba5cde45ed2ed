"""Links of kind ifb: redirected packets pass the queueing discipline of one and continue from there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.kernel import link
from cni.kernel.attributes import number

if TYPE_CHECKING:
    from cni.kernel.rtnetlink import Netlink

KIND = "ifb"


def create(nl: Netlink, name: str, mac: str, mtu: int = 0, group: int = 0) -> bool:
    """Create an ifb, down; return False if a link of that name exists. Raise KernelError.

    `mtu` 0 is the kernel's default. `link.find` and `link.remove` serve it as they are; it has no settings.
    """
    attrs = link.identity(name, mac, mtu) + (number(link.GROUP, group) if group else b"")
    return link.create(nl, f'could not add "{name}"', KIND, b"", attrs)
