"""The configuration keys of the vrf plugin; pure."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from cni.conf import Int, NetConf, Str
from cni.interface.conf import is_link_name

_Table = Annotated[Int, Field(ge=0, le=0xFFFFFFFF)]


class VrfConf(NetConf):
    """The configuration of a VRF.

    Attributes:
        vrfname: Name of the VRF in the container. ADD creates it if it does not exist. Required.
        table: Routing table of the VRF. 0 takes the first one that no other VRF of the container has.
    """

    vrfname: Str = ""
    table: _Table = 0

    @model_validator(mode="after")
    def _check_name(self) -> Self:
        if not self.vrfname:
            raise ValueError("configuration is expected to have a valid vrf name")
        if not is_link_name(self.vrfname):
            raise ValueError(f'"vrfname" is "{self.vrfname}", which no link can be called')
        return self
