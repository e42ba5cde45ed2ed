"""The entry in lists of `pycni network create`; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni.operations.network_part import NAMES, Part

if TYPE_CHECKING:
    from cni.operations.network_part import Wanted

# ICANN reserves the domain "internal" for networks like these: no name outside is hidden by it.
_DOMAIN = "pycni.internal"


def _entry(wanted: Wanted) -> dict[str, Any] | None:
    if wanted.driver != "bridge" or not wanted.has_names:
        return None
    return {
        "type": "dnsname",
        "domainName": _DOMAIN,
        **({"upstreams": list(wanted.nameservers)} if wanted.nameservers else {}),
        **({"internal": True} if wanted.is_internal else {}),
        "capabilities": {"aliases": True, "dns": True},
    }


PART = Part(NAMES, _entry)
