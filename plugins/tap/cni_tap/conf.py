"""The configuration keys of the tap plugin; pure."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from cni.conf import Bool, Int, Mtu, Str
from cni.interface.conf import InterfaceConf, MacConf, RuntimeMac, is_link_name

LARGEST_MTU = 65521
# The kernel has no user and no group with the largest number.
_Id = Annotated[Int, Field(ge=0, le=0xFFFFFFFE)]


class TapConf(InterfaceConf, MacConf):
    """The configuration of a network whose container gets a tap device.

    Attributes:
        multi_queue: Let programs open the device more than once, for one queue each.
        mtu: MTU of the device. 0 leaves it to the kernel.
        mac: MAC address of the device, if the runtime asks for none. The default is a random one.
        owner: Number of the user that may open the device.
        group: Number of the group whose members may open the device.
        selinux_context: SELinux context of the device.
        bridge: Name of a bridge in the container that the device becomes a port of.
    """

    plugin = "tap"
    multi_queue: Bool = False
    mtu: Mtu = 0
    mac: Str = ""
    owner: _Id | None = None
    group: _Id | None = None
    selinux_context: Str = ""
    bridge: Str = ""
    runtime_config: RuntimeMac = Field(default_factory=RuntimeMac)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.mtu > LARGEST_MTU:
            raise ValueError(f"invalid MTU {self.mtu}, must be [0, {LARGEST_MTU}]")
        if self.bridge and not is_link_name(self.bridge):
            raise ValueError(f'"bridge" is "{self.bridge}", which is no name of a link')
        return self
