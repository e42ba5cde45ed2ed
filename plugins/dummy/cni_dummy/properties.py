"""The properties of an attachment: one list for CHECK and repair."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.interface import single
from cni.kernel import dummy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.interface.compare import Attachment
    from cni.operations.properties import Property
    from cni_dummy.conf import DummyConf


def list_properties(conf: DummyConf, of: Attachment) -> Iterator[Property]:
    """Yield all that ADD makes, in an order in which each can be restored after those before it."""
    yield from single.properties(conf, of, dummy.KIND, lambda _own: ())
