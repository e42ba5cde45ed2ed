"""The configuration keys of the vlan plugin; pure."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import model_validator

from cni.conf import Int, Within
from cni.interface.conf import ParentConf

VLAN_MAX = 4094
# A validator checks it, as the error is the Go plugin's text.
_Vlan = Annotated[Int, Within(0, VLAN_MAX)]


class VlanConf(ParentConf):
    """The configuration of a network that is a VLAN of a link below.

    Attributes:
        master: Name of the link below. Required.
        link_in_container: Look for the master in the container's namespace, not on the host.
        mtu: MTU of the container's link, at most that of the master. 0 takes that of the master.
        vlan_id: VLAN ID of the frames on the master.
    """

    plugin = "vlan"
    vlan_id: _Vlan = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.master:
            raise ValueError(
                '"master" field is required. It specifies the host interface name to create the VLAN for'
            )
        if not 0 <= self.vlan_id <= VLAN_MAX:
            raise ValueError(f"invalid VLAN ID {self.vlan_id} (must be between 0 and 4095 inclusive)")
        return self
