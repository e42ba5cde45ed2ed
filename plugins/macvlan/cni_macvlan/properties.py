"""The properties of an attachment: one list for CHECK and repair."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.interface import parent, single
from cni.kernel import macvlan
from cni.operations.properties import Property

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.interface.compare import Attachment
    from cni.kernel.link import Link
    from cni_macvlan.conf import MacvlanConf


def list_properties(conf: MacvlanConf, of: Attachment) -> Iterator[Property]:
    """Yield all that ADD makes, in an order in which each can be restored after those before it."""

    def of_kind(own: Link) -> Iterator[Property]:
        yield parent.of_parent(conf, of.sides, own)
        mode = macvlan.describe(own).mode
        message = f"Interface {own.name} has macvlan mode {mode}, not {conf.wanted_mode}"
        yield Property("", mode, conf.wanted_mode, message)

    yield from single.properties(conf, of, macvlan.KIND, of_kind)
