"""The properties of an attachment: one list for CHECK and repair."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.interface import parent, single
from cni.kernel import vlan
from cni.operations.properties import Property

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.interface.compare import Attachment
    from cni.kernel.link import Link
    from cni_vlan.conf import VlanConf


def list_properties(conf: VlanConf, of: Attachment) -> Iterator[Property]:
    """Yield all that ADD makes, in an order in which each can be restored after those before it."""

    def of_kind(own: Link) -> Iterator[Property]:
        yield parent.of_parent(conf, of.sides, own)
        vid = vlan.describe(own)
        message = f"Interface {own.name} has VLAN ID {vid}, not {conf.vlan_id}"
        yield Property("", vid, conf.vlan_id, message)

    yield from single.properties(conf, of, vlan.KIND, of_kind)
