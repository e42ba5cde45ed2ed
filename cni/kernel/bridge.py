"""Bridges and the settings of their ports. `link.find` and `link.remove` serve bridges as they are.

VLANs of ports are in `bridge_vlan`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cni.kernel import link, rtnetlink
from cni.kernel.attributes import attribute, attributes, nest
from cni.kernel.rtnetlink import Message

if TYPE_CHECKING:
    from cni.kernel.link import Link
    from cni.kernel.rtnetlink import Netlink

KIND = "bridge"
# IFLA_BR_VLAN_FILTERING and IFLA_BRPORT_*, <linux/if_link.h>
_VLAN_FILTERING = 7
_PORT_MODE, _PORT_ISOLATED = 4, 33
_PORT_FLAGS = {"learning": 8, "flooding": 9}


class Settings(NamedTuple):
    """The settings of a bridge."""

    vlan_filtering: bool


class Port(NamedTuple):
    """The settings of a link as a port of a bridge."""

    hairpin: bool = False
    isolated: bool = False


def create(nl: Netlink, name: str, mac: str, mtu: int = 0, *, vlan_filtering: bool = False) -> bool:
    """Create a bridge, down; return False if a link of that name exists. Raise KernelError.

    The MAC address is set at creation: a bridge without one takes that of a port, and changes it as ports
    come and go. `mtu` 0 is the kernel's default.
    """
    data = attribute(_VLAN_FILTERING, b"\1") if vlan_filtering else b""
    return link.create(nl, f'could not add "{name}"', KIND, data, link.identity(name, mac, mtu))


def describe(bridge: Link) -> Settings:
    """Return the settings of a bridge; all are off for a link of another kind."""
    data = attributes(bridge.data, {_VLAN_FILTERING}) if bridge.kind == KIND else {}
    return Settings(any(data.get(_VLAN_FILTERING, b"")))


def describe_port(port: Link) -> Port | None:
    """Return the settings of a link as a port of a bridge; None unless the link is such a port."""
    if port.port_kind != KIND:
        return None
    data = attributes(port.port_data, {_PORT_MODE, _PORT_ISOLATED})
    return Port(any(data.get(_PORT_MODE, b"")), any(data.get(_PORT_ISOLATED, b"")))


def describe_port_flags(port: Link) -> dict[str, bool]:
    """Return the flags that the kernel sets on each new port of a bridge, by name; {} for another link."""
    if port.port_kind != KIND:
        return {}
    data = attributes(port.port_data)
    return {name: any(data[attr]) for name, attr in _PORT_FLAGS.items() if attr in data}


def set_port(name: str, index: int, port: Port) -> Message:
    """Set hairpin mode and isolation of a bridge port."""
    hairpin = attribute(_PORT_MODE, bytes([port.hairpin]))
    isolated = attribute(_PORT_ISOLATED, bytes([port.isolated]))
    doing = f'could not set hairpin mode and isolation of bridge port "{name}"'
    return _change_port(doing, index, hairpin + isolated)


def set_port_flags(name: str, index: int) -> Message:
    """Set the flags that the kernel sets on each new port of a bridge."""
    doing = f'could not switch {" and ".join(_PORT_FLAGS)} of bridge port "{name}" on'
    return _change_port(doing, index, b"".join(attribute(each, b"\1") for each in _PORT_FLAGS.values()))


def _change_port(doing: str, index: int, settings: bytes) -> Message:
    body = link.pack(nest(link.PROTINFO, settings), index=index, family=rtnetlink.AF_BRIDGE)
    return Message(doing, rtnetlink.RTM_SETLINK, body=body)
