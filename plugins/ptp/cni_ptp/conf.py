"""The configuration keys of the ptp plugin; pure."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from cni.interface.conf import MasqueradeConf, Mtu


class PtpConf(MasqueradeConf):
    """The configuration of a network whose containers reach each other through the host.

    Attributes:
        ip_masq: hide the containers behind the host's address when they send out of their subnet.
        ip_masq_backend: "iptables" or "nftables"; by default iptables where it is installed.
        mtu: MTU of the veth pair; at most 65535, 0 leaves it to the kernel.
    """

    mtu: Mtu = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        # It would call itself without end.
        if self.ipam.type == "ptp":
            raise ValueError('"ipam.type" is "ptp", which gives no addresses')
        return self
