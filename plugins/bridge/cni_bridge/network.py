"""The entry in lists of `pycni network create --driver bridge`; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni.operations.network_part import Part, is_on

if TYPE_CHECKING:
    from cni.operations.network_part import Wanted

_DRIVER = "bridge"
_NAME = "com.docker.network.bridge.name"
_MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
_VLAN = "vlan"


def _entry(wanted: Wanted) -> dict[str, Any] | None:
    if wanted.driver != _DRIVER:
        return None
    has_masquerade = is_on(wanted.options, _MASQUERADE, default=not wanted.is_internal)
    return {
        "type": "bridge",
        "bridge": wanted.options.get(_NAME, wanted.link),
        **({"isGateway": True} if wanted.is_internal else {"isDefaultGateway": True}),
        **({"ipMasq": True, "ipMasqBackend": "nftables"} if has_masquerade else {}),
        "hairpinMode": True,
        **({"vlan": int(wanted.options[_VLAN])} if _VLAN in wanted.options else {}),
        **({"mtu": wanted.mtu} if wanted.mtu else {}),
        "capabilities": {"gatewayPriority": True, "ips": True, "mac": True},
        "ipam": wanted.ipam,
    }


PART = Part(
    entry=_entry,
    drivers=(_DRIVER,),
    options={_DRIVER: (_NAME, _MASQUERADE, _VLAN)},
)
