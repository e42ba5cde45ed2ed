"""The entry in lists of `pycni network create --driver ipvlan`; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni.operations.network_part import Part, parent_entry

if TYPE_CHECKING:
    from cni.operations.network_part import Wanted

_NAME = "ipvlan"


def _entry(wanted: Wanted) -> dict[str, Any] | None:
    if wanted.driver != _NAME:
        return None
    return parent_entry(_NAME, wanted, "gatewayPriority", "ips")


PART = Part(
    entry=_entry,
    drivers=(_NAME,),
    needs_subnet=True,
    options={_NAME: ("parent", "mode", "ipvlan_mode")},
)
