"""DEL: remove what remains of the attachment. The master need not exist any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.interface import single
from cni.kernel import dummy

if TYPE_CHECKING:
    from cni.request import Request
    from cni_dummy.conf import DummyConf


def delete(conf: DummyConf, request: Request) -> None:
    """Remove the link and release its addresses."""
    single.detach(conf, request, dummy.KIND)
