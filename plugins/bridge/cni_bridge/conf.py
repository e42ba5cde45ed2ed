"""The configuration keys of the bridge plugin; pure."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from cni.conf import Bool, Int, Model, Mtu, Str, Within
from cni.interface.conf import MacConf, MasqueradeConf, RuntimeMac, is_link_name

VLAN_MAX = 4094
# VLAN IDs that a validator checks, as the errors are the Go plugin's text.
_TrunkVlan = Annotated[Int, Within(1, VLAN_MAX)]


class TrunkEntry(Model):
    """VLANs that the container may send tagged: one by `id`, several by `minID` and `maxID`, or both.

    Attributes:
        min_id: First VLAN of a range. Needs `maxID`.
        max_id: Last VLAN of a range. Needs `minID`.
        id: A single VLAN.
    """

    min_id: _TrunkVlan | None = Field(default=None, alias="minID")
    max_id: _TrunkVlan | None = Field(default=None, alias="maxID")
    id: _TrunkVlan | None = None

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
        bridge: Name of the bridge. ADD creates the bridge if it does not exist.
        is_gateway: Give the bridge the gateway's address and switch on forwarding, so that the host routes
            for the containers.
        is_default_gateway: Add a default route of each family through the gateway. Implies `isGateway`.
        force_address: Replace another address of the bridge. Otherwise ADD fails.
        mtu: MTU of both ends of the veth pair, and of a bridge that ADD creates. 0 leaves it to the kernel.
        hairpin_mode: Let the bridge return a frame to the port that it came from. Not with `promiscMode`.
        promisc_mode: Let the bridge accept frames for any MAC address.
        vlan: VLAN of the container, untagged. 0 is none. A gateway is then the link `<bridge>.<vlan>`.
        vlan_trunk: VLANs that the container may send tagged: `[{"id": 42}, {"minID": 100, "maxID": 110}]`.
        preserve_default_vlan: Keep the bridge's default VLAN on the port, besides `vlan` and `vlanTrunk`.
        macspoofchk: Drop frames that the container sends from another MAC address than its own. Needs `nft`.
        enabledad: Check IPv6 addresses for duplicates before use, which takes one to two seconds.
        disable_container_interface: Leave the container's end down. Not with `ipam`.
        port_isolation: Isolate the port: isolated ports of a bridge reach the host, but not each other.
    """

    plugin = "bridge"
    delete_reads = frozenset({"ipMasq", "macspoofchk"})
    bridge: Str = "cni0"
    is_gateway: Bool = False
    is_default_gateway: Bool = False
    force_address: Bool = False
    mtu: Mtu = 0
    hairpin_mode: Bool = False
    promisc_mode: Bool = False
    vlan: Annotated[Int, Within(0, VLAN_MAX)] = 0
    vlan_trunk: tuple[TrunkEntry, ...] | None = None
    preserve_default_vlan: Bool = False
    macspoofchk: Bool = False
    enabledad: Bool = False
    disable_container_interface: Bool = False
    port_isolation: Bool = False
    runtime_config: RuntimeMac = Field(default_factory=RuntimeMac)

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
