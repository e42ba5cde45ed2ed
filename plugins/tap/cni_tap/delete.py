"""DEL: remove what remains of the attachment. The master need not exist any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.interface import single
from cni.kernel import tap

if TYPE_CHECKING:
    from cni.request import Request
    from cni_tap.conf import TapConf


def delete(conf: TapConf, request: Request) -> None:
    """Remove the link and release its addresses."""
    single.detach(conf, request, tap.KIND)
