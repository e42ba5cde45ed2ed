"""VLANs of a bridge port, on kernels with CONFIG_BRIDGE_VLAN_FILTERING."""

from __future__ import annotations

import errno
import struct
from typing import Any, NamedTuple

from cni.errors import KernelError
from cni.kernel import link, rtnetlink
from cni.kernel.attributes import attribute, nest
from cni.kernel.rtnetlink import Message, Netlink

# <linux/if_bridge.h>, <linux/if_link.h> and <linux/rtnetlink.h>
_INFO = struct.Struct("=HH")  # struct bridge_vlan_info: flags, ID
_AF_SPEC, _VLAN_INFO = 26, 2
_FLAG_PVID, _FLAG_UNTAGGED, _FLAG_RANGE_BEGIN, _FLAG_RANGE_END = 0x2, 0x4, 0x8, 0x10
_RTEXT_FILTER_BRVLAN = 0x2
_ALL_VLANS = (1, 4094)


class PortVlan(NamedTuple):
    """One VLAN, or the VLANs from `vid` to `last`.

    The port puts untagged frames into a VLAN with `pvid`, and sends frames of one with `untagged` without a
    tag.
    """

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
    """Remove VLANs from a port, all by default; a VLAN that it does not carry is no error."""
    listed = ", ".join(_show(each) for each in vlans)
    doing = f'could not remove VLAN {listed} from bridge port "{name}"'
    return _message(doing, rtnetlink.RTM_DELLINK, index, vlans)


def list_vlans(nl: Netlink, index: int) -> set[PortVlan]:
    """Return the VLANs of a port one by one; empty if the kernel filters none."""
    return list_all(nl).get(index, set())


def list_all(nl: Netlink) -> dict[int, set[PortVlan]]:
    """Return the VLANs of all ports, and of bridges themselves, by index of the link."""
    # Only a call that lists VLANs needs it.
    from cni.kernel import message_classes

    message = Message(
        "list bridge VLANs",
        rtnetlink.RTM_GETLINK,
        fields={"family": rtnetlink.AF_BRIDGE},
        attrs=[("IFLA_EXT_MASK", _RTEXT_FILTER_BRVLAN)],
    )
    try:
        shown = [message_classes.decode(message.kind, each) for each in nl.dump(message)]
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
    infos = nest(_AF_SPEC, *(attribute(_VLAN_INFO, info) for each in vlans for info in _pack(each)))
    return Message(doing, kind, body=link.pack(infos, index=index, family=rtnetlink.AF_BRIDGE))


def _pack(vlan: PortVlan) -> list[bytes]:
    """Return one struct bridge_vlan_info, or two for the ends of a range."""
    flags = _FLAG_PVID * vlan.pvid | _FLAG_UNTAGGED * vlan.untagged
    if vlan.last <= vlan.vid:
        return [_INFO.pack(flags, vlan.vid)]
    return [_INFO.pack(flags | _FLAG_RANGE_BEGIN, vlan.vid), _INFO.pack(flags | _FLAG_RANGE_END, vlan.last)]


def _parse(info: Any) -> PortVlan:
    flags = info["flags"]
    return PortVlan(info["vid"], pvid=bool(flags & _FLAG_PVID), untagged=bool(flags & _FLAG_UNTAGGED))


def _show(vlan: PortVlan) -> str:
    return f"{vlan.vid}-{vlan.last}" if vlan.last > vlan.vid else str(vlan.vid)
