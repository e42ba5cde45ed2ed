"""The entry in lists of `pycni network create`; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni.operations.network_part import FILTER, Part, is_on

if TYPE_CHECKING:
    from cni.operations.network_part import Wanted

_DRIVER = "bridge"
_ICC = "com.docker.network.bridge.enable_icc"


def _entry(wanted: Wanted) -> dict[str, Any] | None:
    if wanted.driver != _DRIVER:
        return None
    return {
        "type": "firewall",
        "backend": "nftables",
        **({"isolate": True} if wanted.is_isolated else {}),
        **({"internal": True} if wanted.is_internal else {}),
        **({} if is_on(wanted.options, _ICC, default=True) else {"icc": False}),
    }


PART = Part(FILTER, _entry, options={_DRIVER: (_ICC,)})
