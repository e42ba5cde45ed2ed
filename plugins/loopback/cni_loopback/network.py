"""The entry in lists of `pycni network create --driver none`; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni.operations.network_part import Part

if TYPE_CHECKING:
    from cni.operations.network_part import Wanted

_DRIVER = "none"


def _entry(wanted: Wanted) -> dict[str, Any] | None:
    return {"type": "loopback"} if wanted.driver == _DRIVER else None


PART = Part(entry=_entry, drivers=(_DRIVER,), has_subnet=False)
