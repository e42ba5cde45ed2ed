"""GC: find the records of attachments that are no longer valid. Rules end with the container."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.operations.garbage import find_records

if TYPE_CHECKING:
    from cni.operations.garbage import Finder
    from cni.request import Request
    from cni_sbr.conf import SbrConf


def finders(conf: SbrConf, request: Request) -> list[Finder]:
    """Return the finder of records."""
    return [partial(find_records, "sbr", conf.name, request.required_valid())]
