"""The entry in lists of `pycni network create`; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni.operations.network_part import PORTS, Part

if TYPE_CHECKING:
    from cni.operations.network_part import Wanted


def _entry(wanted: Wanted) -> dict[str, Any] | None:
    if wanted.driver != "bridge" or wanted.is_internal:
        return None
    return {"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": True}}


PART = Part(PORTS, _entry)
