"""GC: find what belongs to attachments that are no longer valid."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.interface import single
from cni.kernel import tap

if TYPE_CHECKING:
    from cni.operations.garbage import Finder
    from cni.request import Request
    from cni_tap.conf import TapConf


def finders(conf: TapConf, request: Request) -> list[Finder]:
    """Return the finder of links and records."""
    return [partial(single.links, conf, tap.KIND, request.required_valid())]
