"""The configuration keys of the bridge plugin; pure."""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from cni.conf import Bool, Int, Model, Mtu, NetConf, Str, Within, wrong_type
from cni.errors import CniError, Code

VLAN_MAX = 4094
_IFNAME_BYTES = 15
# No separators, nothing unprintable; of "%" the kernel would make another name.
_LINK_NAME = re.compile(r"(?!\.\.?$)[^\s/:%\x00-\x1f\x7f]+")
_MAC_FORMS = tuple(
    re.compile(form, re.ASCII | re.IGNORECASE)
    for form in (
        "[0-9a-f]{2}(:[0-9a-f]{2}){5}",
        "[0-9a-f]{2}(-[0-9a-f]{2}){5}",
        r"[0-9a-f]{4}(\.[0-9a-f]{4}){2}",
    )
)


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
        if self.min_id is not None and not _is_trunk_vlan(self.min_id):
            raise ValueError("incorrect trunk minID parameter")
        if self.max_id is not None and not _is_trunk_vlan(self.max_id):
            raise ValueError("incorrect trunk maxID parameter")
        together = "minID and maxID should be configured simultaneously"
        if self.min_id is None and self.max_id is not None:
            raise ValueError(f"{together}, minID is missing")
        if self.min_id is not None and self.max_id is None:
            raise ValueError(f"{together}, maxID is missing")
        if self.min_id is not None and self.max_id is not None and self.min_id > self.max_id:
            raise ValueError("minID is greater than maxID in trunk parameter")
        if self.id is not None and not _is_trunk_vlan(self.id):
            raise ValueError("incorrect trunk id parameter")
        return self

    @property
    def vids(self) -> set[int]:
        """The VLAN IDs of this entry."""
        vids = set() if self.id is None else {self.id}
        if self.min_id is not None and self.max_id is not None:
            vids |= set(range(self.min_id, self.max_id + 1))
        return vids


def _is_trunk_vlan(vid: int) -> bool:
    return 1 <= vid <= VLAN_MAX


class RuntimeConf(Model):
    """What the runtime adds for the capability `mac`.

    Attributes:
        mac: MAC address of the container's end. Without it `args.cni.mac` counts, then `MAC` in CNI_ARGS.
    """

    mac: Str = ""


class BridgeConf(NetConf):
    """The configuration of one network on one bridge.

    Attributes:
        bridge: Name of the bridge. ADD creates the bridge if it does not exist.
        is_gateway: Give the bridge the gateway's address and switch on forwarding, so that the host routes
            for the containers.
        is_default_gateway: Add a default route of each family through the gateway. Implies `isGateway`.
        force_address: Replace another address of the bridge. Otherwise ADD fails.
        ip_masq: Masquerade what containers send outside their subnet.
        ip_masq_backend: `"iptables"` or `"nftables"`. The default is iptables where it works, else nftables.
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
        runtime_config: What the runtime adds for capabilities.
    """

    bridge: Str = "cni0"
    is_gateway: Bool = False
    is_default_gateway: Bool = False
    force_address: Bool = False
    ip_masq: Bool = False
    ip_masq_backend: Str | None = None
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
    runtime_config: RuntimeConf = Field(default_factory=RuntimeConf)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not _LINK_NAME.fullmatch(self.bridge) or len(self.bridge.encode()) > _IFNAME_BYTES:
            raise ValueError(f'could not add "{self.bridge}": "bridge" must be a link name of 1 to 15 bytes')
        if not 0 <= self.vlan <= VLAN_MAX:
            raise ValueError(f"invalid VLAN ID {self.vlan} (must be between 0 and {VLAN_MAX})")
        if self.hairpin_mode and self.promisc_mode:
            raise ValueError("cannot set hairpin mode and promiscuous mode at the same time")
        if self.disable_container_interface and self.ipam.type:
            raise ValueError("cannot use IPAM when DisableContainerInterface flag is set")
        # It would ask itself without end.
        if self.ipam.type == "bridge":
            raise ValueError('"ipam.type" is "bridge", which gives no addresses')
        return self

    @property
    def has_gateway(self) -> bool:
        """Whether the bridge gets the gateway's address."""
        return (self.is_gateway or self.is_default_gateway) and bool(self.ipam.type)

    @property
    def has_masquerade(self) -> bool:
        """Whether containers are masqueraded; one without addresses never is."""
        return self.ip_masq and bool(self.ipam.type)

    @property
    def trunk(self) -> tuple[int, ...]:
        """The VLAN IDs of the trunk, sorted, each once."""
        return tuple(sorted({vid for entry in self.vlan_trunk or () for vid in entry.vids}))

    @property
    def needs_vlan_filtering(self) -> bool:
        """Whether the bridge must tell VLANs apart."""
        return self.vlan != 0 or self.vlan_trunk is not None

    def mac_from(self, cni_args: dict[str, str]) -> str:
        """Give the container's MAC address, lower case with colons, "" for a random one.

        `runtimeConfig.mac` comes before `args.cni.mac` and that before MAC in CNI_ARGS. Raises CniError 7.
        """
        in_args: Any = ""
        for key, value in self.args.cni.items():
            in_args = (value or "") if key.lower() == "mac" else in_args
        if not isinstance(in_args, str):
            raise wrong_type("args.cni.mac", "a string", in_args, Code.INVALID_CONFIG)
        given = self.runtime_config.mac or in_args or cni_args.get("MAC", "")
        return parse_mac(given) if given else ""


def parse_mac(text: str) -> str:
    """Read "02:11:22:33:44:55", "02-11-..." or "0211.2233.4455". Raises CniError 7."""
    form = next((form for form in _MAC_FORMS if form.fullmatch(text)), None)
    if form is None:
        raise _bad_mac(f"address {text}: invalid MAC address")
    octets = bytes.fromhex(re.sub("[-:.]", "", text))
    if octets[0] & 1 or not any(octets):
        raise _bad_mac("cannot assign requested address", f"{text} is no address that a single link can have")
    return octets.hex(":")


def _bad_mac(why: str, details: str = "it is six octets, as 02:11:22:33:44:55") -> CniError:
    return CniError(Code.INVALID_CONFIG, f"failed to make veth pair: {why}", details)
