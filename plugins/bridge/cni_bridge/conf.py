"""The configuration keys of the bridge plugin; pure."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from cni.conf import Bool, Int, Model, Str
from cni.interface.conf import MacConf, MasqueradeConf, Mtu, is_link_name

VLAN_MAX = 4094


class TrunkEntry(Model):
    """VLANs that the container may send tagged: one by `id`, several by `minID` and `maxID`, or both."""

    min_id: Int | None = Field(default=None, alias="minID")
    max_id: Int | None = Field(default=None, alias="maxID")
    id: Int | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key, vid in (("minID", self.min_id), ("maxID", self.max_id)):
            if vid is not None and not 1 <= vid <= VLAN_MAX:
                raise ValueError(f"incorrect trunk {key} parameter")
        if (self.min_id is None) != (self.max_id is None):
            missing = "minID" if self.min_id is None else "maxID"
            raise ValueError(f"minID and maxID should be configured simultaneously, {missing} is missing")
        if self.min_id is not None and self.max_id is not None and self.min_id > self.max_id:
            raise ValueError("minID is greater than maxID in trunk parameter")
        if self.id is not None and not 1 <= self.id <= VLAN_MAX:
            raise ValueError("incorrect trunk id parameter")
        return self

    @property
    def vids(self) -> set[int]:
        """The VLAN IDs of this entry."""
        vids = set() if self.id is None else {self.id}
        if self.min_id is not None and self.max_id is not None:
            vids |= set(range(self.min_id, self.max_id + 1))
        return vids


class BridgeConf(MasqueradeConf, MacConf):
    """The configuration of one network on one bridge.

    Attributes:
        bridge: name of the bridge; it is made if there is none.
        is_gateway: the bridge has the gateway's address, so that the host routes for the containers.
        is_default_gateway: also route everything that the container sends through it.
        force_address: replace another address that the bridge has, instead of an error.
        ip_masq: hide the containers behind the host's address when they send out of their subnet.
        ip_masq_backend: "iptables" or "nftables"; by default iptables where it is installed.
        mtu: MTU of the veth pair, and of the bridge if it is made now; at most 65535, 0 leaves it to the
        kernel. hairpin_mode: the bridge may send a frame back to the container that it came from.
        promisc_mode: the bridge takes in frames for any MAC address.
        vlan: the container is in this VLAN of the bridge, untagged; 0 is none.
        vlan_trunk: VLANs that the container may send tagged; None when the key is absent.
        preserve_default_vlan: the port keeps the bridge's default VLAN besides those above.
        macspoofchk: drop what the container sends from another MAC address than its own.
        enabledad: IPv6 addresses are checked for duplicates before use, which takes a second or two.
        disable_container_interface: leave the container's end switched off.
        port_isolation: isolated ports of the bridge do not reach each other.
        runtime_config: the MAC address from the runtime.
    """

    bridge: Str = "cni0"
    is_gateway: Bool = False
    is_default_gateway: Bool = False
    force_address: Bool = False
    mtu: Mtu = 0
    hairpin_mode: Bool = False
    promisc_mode: Bool = False
    vlan: Int = 0
    vlan_trunk: tuple[TrunkEntry, ...] | None = None
    preserve_default_vlan: Bool = False
    macspoofchk: Bool = False
    enabledad: Bool = False
    disable_container_interface: Bool = False
    port_isolation: Bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not is_link_name(self.bridge):
            raise ValueError(f'could not add "{self.bridge}": "bridge" must be a link name of 1 to 15 bytes')
        if not 0 <= self.vlan <= VLAN_MAX:
            raise ValueError(f"invalid VLAN ID {self.vlan} (must be between 0 and {VLAN_MAX})")
        if self.hairpin_mode and self.promisc_mode:
            raise ValueError("cannot set hairpin mode and promiscuous mode at the same time")
        if self.disable_container_interface and self.ipam.type:
            raise ValueError("cannot use IPAM when DisableContainerInterface flag is set")
        # It would call itself without end.
        if self.ipam.type == "bridge":
            raise ValueError('"ipam.type" is "bridge", which gives no addresses')
        return self

    @property
    def has_gateway(self) -> bool:
        """Whether the bridge gets the gateway's address."""
        return (self.is_gateway or self.is_default_gateway) and bool(self.ipam.type)

    @property
    def trunk(self) -> tuple[int, ...]:
        """The VLAN IDs of the trunk, sorted, each once."""
        return tuple(sorted({vid for entry in self.vlan_trunk or () for vid in entry.vids}))

    @property
    def needs_vlan_filtering(self) -> bool:
        """Whether the bridge must tell VLANs apart."""
        return self.vlan != 0 or self.vlan_trunk is not None
