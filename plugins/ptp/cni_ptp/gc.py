"""GC: find what belongs to attachments that are no longer valid."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.interface.collect import host_ends, rules, unfinished_ends
from cni.interface.pair import pairs_locked

if TYPE_CHECKING:
    from cni.operations.garbage import Finder
    from cni.request import Request
    from cni_ptp.conf import PtpConf


def finders(conf: PtpConf, request: Request) -> list[Finder]:
    """Return the finders; links come first, since later finders depend on them."""
    valid = request.required_valid()
    return [
        partial(host_ends, conf.name, valid),
        partial(unfinished_ends, conf.name, pairs_locked, lambda _nl: 0),
        partial(rules, conf.name, valid),
    ]
