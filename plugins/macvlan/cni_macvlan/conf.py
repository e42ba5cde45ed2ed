"""The configuration keys of the macvlan plugin; pure."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from cni.conf import Int, Str
from cni.interface.conf import MacConf, ParentConf, RuntimeMac

MODES = ("bridge", "private", "vepa", "passthru")
_Length = Annotated[Int, Field(ge=0, le=0xFFFFFFFF)]


class MacvlanConf(ParentConf, MacConf):
    """The configuration of a network that is the one of a link below.

    Attributes:
        master: Name of the link below. The default is the link of the default route.
        link_in_container: Look for the master in the container's namespace, not on the host.
        mtu: MTU of the container's link, at most that of the master. 0 takes that of the master.
        mode: `"bridge"` lets containers of one master reach each other, `"private"` does not, `"vepa"` sends
            their frames through the switch outside, `"passthru"` gives the whole master to one container.
        mac: MAC address of the container's link, if the runtime asks for none. The default is a random one.
        bcqueuelen: Length of the master's queue of broadcast frames. 0 leaves it to the kernel.
    """

    plugin = "macvlan"
    mode: Str = ""
    mac: Str = ""
    bcqueuelen: _Length = 0
    runtime_config: RuntimeMac = Field(default_factory=RuntimeMac)

    @model_validator(mode="after")
    def _check_mode(self) -> Self:
        if self.mode and self.mode not in MODES:
            raise ValueError(f'unknown macvlan mode: "{self.mode}"')
        return self

    @property
    def wanted_mode(self) -> str:
        """The mode with its default."""
        return self.mode or MODES[0]
