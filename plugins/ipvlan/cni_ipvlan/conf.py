"""The configuration keys of the ipvlan plugin; pure."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from cni.conf import Str
from cni.interface.conf import ParentConf

MODES = ("l2", "l3", "l3s")


class IpvlanConf(ParentConf):
    """The configuration of a network behind the MAC address of a link below.

    Attributes:
        master: Name of the link below. The default is the only link in the result of the plugin before, or
            without such a result the link of the default route.
        link_in_container: Look for the master in the container's namespace, not on the host.
        mtu: MTU of the container's link, at most that of the master. 0 takes that of the master.
        mode: `"l2"` passes frames to the master's network, `"l3"` only routes packets, `"l3s"` also passes
            them through the host's firewall.
    """

    plugin = "ipvlan"
    mode: Str = ""

    @model_validator(mode="after")
    def _check_mode(self) -> Self:
        if self.mode and self.mode not in MODES:
            raise ValueError(f'unknown ipvlan mode: "{self.mode}"')
        return self

    @property
    def wanted_mode(self) -> str:
        """The mode with its default."""
        return self.mode or MODES[0]
