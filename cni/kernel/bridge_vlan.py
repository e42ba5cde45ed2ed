"""VLANs of a bridge port, on kernels with CONFIG_BRIDGE_VLAN_FILTERING."""

from __future__ import annotations

import errno
from typing import Any, NamedTuple

from cni.errors import KernelError
from cni.kernel import rtnetlink
from cni.kernel.rtnetlink import Message, Netlink

# The kernel's linux/if_bridge.h and linux/rtnetlink.h.
_FLAG_PVID, _FLAG_UNTAGGED, _FLAG_RANGE_BEGIN, _FLAG_RANGE_END = 0x2, 0x4, 0x8, 0x10
_RTEXT_FILTER_BRVLAN = 0x2
_ALL_VLANS = (1, 4094)


class PortVlan(NamedTuple):
    """One VLAN, or those from `vid` to `last`; `pvid` takes in untagged frames, `untagged` sends so."""

    vid: int
    last: int = 0
    pvid: bool = False
    untagged: bool = False


def add(name: str, index: int, vlans: tuple[PortVlan, ...]) -> Message:
    """Let a port carry VLANs, besides those that it carries already."""
    listed = ", ".join(_show(each) for each in vlans)
    return _message(
        f'could not add VLAN {listed} to bridge port "{name}"', rtnetlink.RTM_SETLINK, index, vlans
    )


def remove(name: str, index: int, vlans: tuple[PortVlan, ...] = (PortVlan(*_ALL_VLANS),)) -> Message:
    """Take VLANs off a port, all of them by default; those it does not carry are no error."""
    listed = ", ".join(_show(each) for each in vlans)
    doing = f'could not remove VLAN {listed} from bridge port "{name}"'
    return _message(doing, rtnetlink.RTM_DELLINK, index, vlans)


def list_vlans(nl: Netlink, index: int) -> set[PortVlan]:
    """Give the VLANs of a port one by one; empty where the kernel filters none."""
    return list_all(nl).get(index, set())


def list_all(nl: Netlink) -> dict[int, set[PortVlan]]:
    """Give the VLANs of all ports, and of bridges themselves, by index of the link."""
    message = Message(
        "list bridge VLANs",
        rtnetlink.RTM_GETLINK,
        fields={"family": rtnetlink.AF_BRIDGE},
        attrs=[("IFLA_EXT_MASK", _RTEXT_FILTER_BRVLAN)],
    )
    try:
        shown = [rtnetlink.decode(message.kind, each) for each in nl.dump(message)]
    except KernelError as error:
        if error.errno == errno.EOPNOTSUPP:
            return {}
        raise
    found: dict[int, set[PortVlan]] = {}
    for each in shown:
        attrs = (each.get_attr("IFLA_AF_SPEC") or {"attrs": []})["attrs"]
        vlans = {_parse(value) for name, value, *_ in attrs if name == "IFLA_BRIDGE_VLAN_INFO"}
        found.setdefault(each["index"], set()).update(vlans)
    return found


def _message(doing: str, kind: int, index: int, vlans: tuple[PortVlan, ...]) -> Message:
    attrs = [("IFLA_BRIDGE_VLAN_INFO", info) for each in vlans for info in encode(each)]
    fields = {"family": rtnetlink.AF_BRIDGE, "index": index}
    return Message(doing, kind, fields=fields, attrs=[("IFLA_AF_SPEC", {"attrs": attrs})])


def encode(vlan: PortVlan) -> list[dict[str, int]]:
    """Give struct bridge_vlan_info as pyroute2 wants it: one, or two for the ends of a range."""
    flags = _FLAG_PVID * vlan.pvid | _FLAG_UNTAGGED * vlan.untagged
    if vlan.last <= vlan.vid:
        return [{"vid": vlan.vid, "flags": flags}]
    return [
        {"vid": vlan.vid, "flags": flags | _FLAG_RANGE_BEGIN},
        {"vid": vlan.last, "flags": flags | _FLAG_RANGE_END},
    ]


def _parse(info: Any) -> PortVlan:
    flags = info["flags"]
    return PortVlan(info["vid"], pvid=bool(flags & _FLAG_PVID), untagged=bool(flags & _FLAG_UNTAGGED))


def _show(vlan: PortVlan) -> str:
    return f"{vlan.vid}-{vlan.last}" if vlan.last > vlan.vid else str(vlan.vid)
