"""GC: find what belongs to attachments that are no longer valid."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.interface import single
from cni.kernel import ipvlan

if TYPE_CHECKING:
    from cni.operations.garbage import Finder
    from cni.request import Request
    from cni_ipvlan.conf import IpvlanConf


def finders(conf: IpvlanConf, request: Request) -> list[Finder]:
    """Return the finder of links and records."""
    return [partial(single.links, conf, ipvlan.KIND, request.required_valid())]
