"""Links: bridges, veth pairs, their settings and those of bridge ports.

All look-ups are by name or index. Every function takes the `Netlink` of the namespace that the link is
in; `set_x` only give the message, so that several changes go to the kernel in one batch.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cni import netlink
from cni.errors import CniError, Code, KernelError
from cni.netlink import Message, Netlink

if TYPE_CHECKING:
    from cni.netns import Netns

IFF_UP, IFF_LOOPBACK, IFF_PROMISC = 0x1, 0x8, 0x100
_RTEXT_FILTER_SKIP_STATS = 0x8
_OPERSTATES = {
    "UNKNOWN": "unknown",
    "NOTPRESENT": "not-present",
    "DOWN": "down",
    "LOWERLAYERDOWN": "lower-layer-down",
    "TESTING": "testing",
    "DORMANT": "dormant",
    "UP": "up",
}


@dataclass(frozen=True, slots=True)
class Port:
    """The settings of a link as a port of a bridge."""

    hairpin: bool = False
    isolated: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """A link as the kernel shows it. Indices are 0 where there is none; `kind` is "" for hardware.

    `peer` is the index of a veth's other end in that end's namespace. `port` is None unless the link is a
    port of a bridge, `vlan_filtering` None unless it is a bridge.
    """

    name: str
    index: int
    kind: str
    mac: str
    mtu: int
    flags: int
    operstate: str
    master: int
    peer: int
    alias: str
    port: Port | None
    vlan_filtering: bool | None

    @property
    def is_up(self) -> bool:
        """Tell whether the link is switched on, whatever its carrier."""
        return bool(self.flags & IFF_UP)

    @property
    def is_promisc(self) -> bool:
        """Tell whether somebody asked for promiscuous mode by IFF_PROMISC."""
        return bool(self.flags & IFF_PROMISC)


@dataclass(frozen=True, slots=True)
class VethSpec:
    """A veth pair to create: the host end is here, the container end is born in `netns`.

    MAC addresses are given, as software on the host may change those that the kernel picks. `mtu` 0 leaves
    it to the kernel; `master` is the index of the host end's bridge, 0 for none.
    """

    host_name: str
    host_mac: str
    container_name: str
    container_mac: str
    netns: Netns
    mtu: int = 0
    master: int = 0


def find(nl: Netlink, name: str) -> Link | None:
    """Look a link up by name, None if there is none."""
    return _find(nl, Message(f'look up "{name}"', netlink.RTM_GETLINK, attrs=[("IFLA_IFNAME", name)]))


def find_by_index(nl: Netlink, index: int) -> Link | None:
    """Look a link up by index, None if there is none."""
    return _find(nl, Message(f"look up link {index}", netlink.RTM_GETLINK, fields={"index": index}))


def get(nl: Netlink, name: str) -> Link:
    """Look a link up by name; raises CniError 100 if there is none."""
    if (found := find(nl, name)) is None:
        raise CniError(Code.KERNEL, f'failed to lookup "{name}": Link not found')
    return found


def list_links(nl: Netlink, master: int = 0) -> list[Link]:
    """List the links of the namespace, or the ports of the bridge with index `master`."""
    attrs: list[tuple[str, Any]] = [("IFLA_EXT_MASK", _RTEXT_FILTER_SKIP_STATS)]
    if master:
        attrs.append(("IFLA_MASTER", master))
    return [_parse(each) for each in nl.dump(Message("list links", netlink.RTM_GETLINK, attrs=attrs))]


def create_bridge(nl: Netlink, name: str, mac: str, mtu: int = 0, *, vlan_filtering: bool = False) -> bool:
    """Create a bridge, down; False if a link of that name exists. Raises KernelError.

    The MAC address is given at creation, because a bridge without one takes that of its ports and changes
    it as they come and go. `mtu` 0 is the kernel's default.
    """
    data = {"attrs": [("IFLA_BR_VLAN_FILTERING", 1)]} if vlan_filtering else {"attrs": []}
    info = {"attrs": [("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", data)]}
    attrs: list[tuple[str, Any]] = [("IFLA_IFNAME", name), ("IFLA_ADDRESS", mac), ("IFLA_LINKINFO", info)]
    if mtu:
        attrs.append(("IFLA_MTU", mtu))
    return _create(nl, f'could not add "{name}"', attrs)


def new_mac() -> str:
    """Give a random MAC address: unicast, locally administered."""
    first, *rest = os.urandom(6)
    return ":".join(f"{byte:02x}" for byte in [(first | 0x02) & 0xFE, *rest])


def new_host_name() -> str:
    """Give a random name for the host end of a veth pair, as "veth1a2b3c4d"."""
    return f"veth{os.urandom(4).hex()}"


def create_veth(nl: Netlink, spec: VethSpec) -> bool:
    """Create a veth pair, both ends down; False if one of the two names is taken. Raises KernelError."""
    peer: list[tuple[str, Any]] = [
        ("IFLA_IFNAME", spec.container_name),
        ("IFLA_ADDRESS", spec.container_mac),
        ("IFLA_NET_NS_FD", spec.netns.fd),
    ]
    attrs: list[tuple[str, Any]] = [("IFLA_IFNAME", spec.host_name), ("IFLA_ADDRESS", spec.host_mac)]
    if spec.mtu:
        peer.append(("IFLA_MTU", spec.mtu))
        attrs.append(("IFLA_MTU", spec.mtu))
    if spec.master:
        attrs.append(("IFLA_MASTER", spec.master))
    data = {"attrs": [("VETH_INFO_PEER", {"attrs": peer})]}
    attrs.append(("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", data)]}))
    return _create(nl, "failed to make veth pair", attrs)


def _create(nl: Netlink, doing: str, attrs: list[tuple[str, Any]]) -> bool:
    flags = netlink.NLM_F_CREATE | netlink.NLM_F_EXCL
    try:
        nl.batch([Message(doing, netlink.RTM_NEWLINK, flags, attrs=attrs)])
    except KernelError as error:
        if error.errno == errno.EEXIST:
            return False
        raise
    return True


def remove_made(nl: Netlink, name: str, mac: str) -> bool:
    """Remove a link if it has this MAC address, by which its maker knows it; False if it is another one."""
    found = find(nl, name)
    return found is not None and found.mac == mac and remove(nl, name)


def remove(nl: Netlink, name: str) -> bool:
    """Remove a link and with it the other end of a veth pair; False if there is none."""
    try:
        nl.batch([Message(f'could not remove "{name}"', netlink.RTM_DELLINK, attrs=[("IFLA_IFNAME", name)])])
    except KernelError as error:
        if error.errno == errno.ENODEV:
            return False
        raise
    return True


def set_flags(name: str, index: int, on: int = 0, off: int = 0) -> Message:
    """Switch flags (IFF_UP, IFF_PROMISC) on and off."""
    fields = {"index": index, "flags": on, "change": on | off}
    word = "up" if on & IFF_UP else "down" if off & IFF_UP else "promiscuous mode of"
    return Message(f'could not set {word} "{name}"', netlink.RTM_SETLINK, fields=fields)


def set_mac(name: str, index: int, mac: str) -> Message:
    """Set a link's MAC address; it then counts as set by hand and does not change by itself."""
    return _change(f'could not set the MAC address of "{name}" to {mac}', index, ("IFLA_ADDRESS", mac))


def set_mtu(name: str, index: int, mtu: int) -> Message:
    """Set a link's MTU in bytes."""
    return _change(f'could not set the MTU of "{name}" to {mtu}', index, ("IFLA_MTU", mtu))


def set_alias(name: str, index: int, alias: str) -> Message:
    """Give a link a text of up to 255 bytes, which `ip link` shows; "" takes it away."""
    return _change(f'could not set the alias of "{name}"', index, ("IFLA_IFALIAS", alias))


def set_master(name: str, index: int, master: int) -> Message:
    """Make a link a port of the bridge with index `master`; 0 takes it off its bridge."""
    return _change(f'could not make "{name}" a port of bridge {master}', index, ("IFLA_MASTER", master))


def set_port(name: str, index: int, port: Port) -> Message:
    """Set the bridge port settings of a link."""
    attrs = [("IFLA_BRPORT_MODE", int(port.hairpin)), ("IFLA_BRPORT_ISOLATED", int(port.isolated))]
    return Message(
        f'could not set hairpin mode and isolation of bridge port "{name}"',
        netlink.RTM_SETLINK,
        fields={"family": netlink.AF_BRIDGE, "index": index},
        attrs=[("IFLA_PROTINFO", {"attrs": attrs}, netlink.NLA_F_NESTED)],
    )


def _change(doing: str, index: int, attr: tuple[str, Any]) -> Message:
    return Message(doing, netlink.RTM_SETLINK, fields={"index": index}, attrs=[attr])


def _find(nl: Netlink, message: Message) -> Link | None:
    message.attrs.append(("IFLA_EXT_MASK", _RTEXT_FILTER_SKIP_STATS))
    try:
        return _parse(nl.request(message))
    except KernelError as error:
        if error.errno == errno.ENODEV:
            return None
        raise


def _parse(shown: Any) -> Link:
    info = _attrs(shown.get_attr("IFLA_LINKINFO"))
    kind = info.get("IFLA_INFO_KIND", "")
    data = _attrs(info.get("IFLA_INFO_DATA")) if kind == "bridge" else {}
    filtering = data.get("IFLA_BR_VLAN_FILTERING")
    return Link(
        name=shown.get_attr("IFLA_IFNAME"),
        index=shown["index"],
        kind=kind,
        mac=shown.get_attr("IFLA_ADDRESS") or "",
        mtu=shown.get_attr("IFLA_MTU") or 0,
        flags=shown["flags"],
        operstate=_OPERSTATES.get(shown.get_attr("IFLA_OPERSTATE"), "unknown"),
        master=shown.get_attr("IFLA_MASTER") or 0,
        peer=(shown.get_attr("IFLA_LINK") or 0) if kind == "veth" else 0,
        alias=shown.get_attr("IFLA_IFALIAS") or "",
        port=_parse_port(info),
        vlan_filtering=None if filtering is None else bool(filtering),
    )


def _parse_port(info: dict[str, Any]) -> Port | None:
    if info.get("IFLA_INFO_SLAVE_KIND") != "bridge":
        return None
    data = _attrs(info.get("IFLA_INFO_SLAVE_DATA"))
    return Port(bool(data.get("IFLA_BRPORT_MODE")), bool(data.get("IFLA_BRPORT_ISOLATED")))


def _attrs(nested: Any) -> dict[str, Any]:
    return {} if nested is None else {name: value for name, value, *_ in nested["attrs"]}
