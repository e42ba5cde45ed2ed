"""Links: bridges, veth pairs, their settings and those of bridge ports.

All look-ups are by name or index. Every function takes the `Netlink` of the namespace that the link is
in; `set_x` only give the message, so that several changes go to the kernel in one batch.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code, KernelError
from cni.kernel import rtnetlink
from cni.kernel.attributes import attribute, attributes, nest, number, shown_number, shown_text, text
from cni.kernel.rtnetlink import Message, Netlink

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.kernel.netns import Netns

IFF_UP, IFF_LOOPBACK, IFF_PROMISC = 0x1, 0x8, 0x100
# The group of links whose maker has not told yet whose they are: the kernel takes no alias with a new link.
UNFINISHED = int.from_bytes(b"pycn")
# RFC 2863, section 6, in this order.
_OPERSTATES = ("unknown", "not-present", "down", "lower-layer-down", "testing", "dormant", "up")

# struct ifinfomsg and the attributes, <linux/if_link.h>, <linux/veth.h>
_HEAD = struct.Struct("=BxHiII")  # family, device type, index, flags, which of them change
_ADDRESS, _IFNAME, _MTU, _LINK, _MASTER, _PROTINFO = 1, 3, 4, 5, 10, 12
_OPERSTATE, _LINKINFO, _IFALIAS, _GROUP, _NET_NS_FD, _EXT_MASK, _NETNSID = 16, 18, 20, 27, 28, 29, 37
_SHOWN = {_ADDRESS, _IFNAME, _MTU, _LINK, _MASTER, _OPERSTATE, _LINKINFO, _IFALIAS, _GROUP, _NETNSID}
_INFO_KIND, _INFO_DATA, _INFO_PORT_KIND, _INFO_PORT_DATA = 1, 2, 4, 5
_BRIDGE_VLAN_FILTERING = 7
_PORT_MODE, _PORT_ISOLATED = 4, 33
_PORT_FLAGS = {"learning": 8, "flooding": 9}
_VETH_PEER = 1
_AF_SPEC, _INET_SETTINGS, _ARP_NOTIFY = 26, 1, 22
_WITHOUT_STATISTICS = number(_EXT_MASK, 0x8)


class Port(NamedTuple):
    """The settings of a link as a port of a bridge."""

    hairpin: bool = False
    isolated: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """A link as the kernel shows it. Indices are 0 where there is none; `kind` is "" for hardware.

    `peer` is the index of a veth's other end in that end's namespace; `netnsid` is this namespace's number
    for that one, None for its own. `port` is None unless the link is a port of a bridge, `vlan_filtering`
    None unless it is a bridge.
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
    group: int
    port: Port | None
    vlan_filtering: bool | None
    netnsid: int | None = None

    @property
    def local_peer(self) -> int:
        """Return the index of the other end if that is in the same namespace, else 0."""
        return self.peer if self.netnsid is None else 0

    @property
    def is_up(self) -> bool:
        """Tell whether the link is switched on, whatever its carrier."""
        return bool(self.flags & IFF_UP)

    @property
    def is_promisc(self) -> bool:
        """Tell whether somebody asked for promiscuous mode by IFF_PROMISC."""
        return bool(self.flags & IFF_PROMISC)


class VethSpec(NamedTuple):
    """A veth pair to create: the host end is here, the container end is born in `netns`.

    MAC addresses are given, as software on the host may change those that the kernel picks. `mtu` 0 leaves
    it to the kernel; `master` is the index of the host end's bridge, 0 for none; `group` is the host end's.
    """

    host_name: str
    host_mac: str
    container_name: str
    container_mac: str
    netns: Netns
    mtu: int = 0
    master: int = 0
    group: int = 0


def find(nl: Netlink, name: str) -> Link | None:
    """Look a link up by name, None if there is none."""
    return _found(nl.ask(_look_up(name))[0])


def get_operstate(nl: Netlink, name: str) -> str:
    """Give the state of a link's traffic alone, "up" and so on; raises CniError 100 if there is none."""
    [answer] = _ask(nl, [name])
    return _shown_operstate(attributes(answer[_HEAD.size :], {_OPERSTATE}).get(_OPERSTATE, b""))


def find_by_index(nl: Netlink, index: int) -> Link | None:
    """Look a link up by index, None if there is none."""
    body = _body(_WITHOUT_STATISTICS, index=index)
    return _found(nl.ask(Message(f"look up link {index}", rtnetlink.RTM_GETLINK, body=body))[0])


def get(nl: Netlink, name: str) -> Link:
    """Look a link up by name; raises CniError 100 if there is none."""
    return get_all(nl, [name])[0]


def get_all(nl: Netlink, names: Sequence[str], *before: Message) -> list[Link]:
    """Look links up by name; raises CniError 100 if there is none of a name.

    What comes `before` is sent in the same go.
    """
    return [_parse(each) for each in _ask(nl, names, *before)]


def _ask(nl: Netlink, names: Sequence[str], *before: Message) -> list[bytes]:
    asked = {name: _look_up(name) for name in names}
    try:
        return nl.request(*before, *asked.values())[len(before) :]
    except KernelError as error:
        # What came before may have been refused for the same reason, and is not about these links.
        missing = [name for name, message in asked.items() if message.doing == error.args[0]]
        if error.errno == errno.ENODEV and missing:
            raise CniError(Code.KERNEL, f'failed to lookup "{missing[0]}": Link not found') from error
        raise


def find_all(nl: Netlink, names: Sequence[str], after: Message) -> tuple[list[Link | None], bytes]:
    """Look links up by name, None if there is none, with `after` in the same send; return its answer too."""
    *answers, other = nl.ask(*map(_look_up, names), after)
    if isinstance(other, KernelError):
        raise other
    return [_found(each) for each in answers], other


def list_links(nl: Netlink, master: int = 0) -> list[Link]:
    """List the links of the namespace, or the ports of the bridge with index `master`."""
    wanted = number(_MASTER, master) if master else b""
    message = Message("list links", rtnetlink.RTM_GETLINK, body=_body(_WITHOUT_STATISTICS, wanted))
    return [_parse(each) for each in nl.dump(message)]


def find_port_flags(nl: Netlink, index: int) -> dict[str, bool]:
    """Give what the kernel switches on for a new port of a bridge, by name; {} for another link."""
    message = Message(
        f"look up link {index}", rtnetlink.RTM_GETLINK, body=_body(_WITHOUT_STATISTICS, index=index)
    )
    info = attributes(attributes(nl.request(message)[0][_HEAD.size :]).get(_LINKINFO, b""))
    if shown_text(info.get(_INFO_PORT_KIND, b"")) != "bridge":
        return {}
    data = attributes(info.get(_INFO_PORT_DATA, b""))
    return {name: any(data[attr]) for name, attr in _PORT_FLAGS.items() if attr in data}


def create_bridge(nl: Netlink, name: str, mac: str, mtu: int = 0, *, vlan_filtering: bool = False) -> bool:
    """Create a bridge, down; False if a link of that name exists. Raises KernelError.

    The MAC address is given at creation, because a bridge without one takes that of its ports and changes
    it as they come and go. `mtu` 0 is the kernel's default.
    """
    data = attribute(_BRIDGE_VLAN_FILTERING, b"\1") if vlan_filtering else b""
    info = nest(_LINKINFO, text(_INFO_KIND, "bridge"), nest(_INFO_DATA, data))
    return _create(nl, f'could not add "{name}"', _named(name, mac, mtu) + info)


def new_mac() -> str:
    """Give a random MAC address: unicast, locally administered."""
    first, *rest = os.urandom(6)
    return ":".join(f"{byte:02x}" for byte in [(first | 0x02) & 0xFE, *rest])


def new_host_name() -> str:
    """Give a random name for the host end of a veth pair, as "veth1a2b3c4d"."""
    return f"veth{os.urandom(4).hex()}"


def create_veth(nl: Netlink, spec: VethSpec) -> bool:
    """Create a veth pair, both ends down; False if one of the two names is taken. Raises KernelError.

    Raises CniError 4 for a name with a "%", of which the kernel would make another one.
    """
    if "%" in spec.container_name:
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            f'failed to make veth pair: no link can be called "{spec.container_name}"',
            'the kernel numbers links whose names have a "%"; give another CNI_IFNAME',
        )
    peer = _named(spec.container_name, spec.container_mac, spec.mtu) + number(_NET_NS_FD, spec.netns.fd)
    master = number(_MASTER, spec.master) if spec.master else b""
    info = nest(_LINKINFO, text(_INFO_KIND, "veth"), nest(_INFO_DATA, nest(_VETH_PEER, _body(peer))))
    host = _named(spec.host_name, spec.host_mac, spec.mtu)
    group = number(_GROUP, spec.group) if spec.group else b""
    return _create(nl, "failed to make veth pair", host + master + group + info)


def other_end(host: Link, spec: VethSpec) -> Link | None:
    """Give the container end of a pair just made, known without a question; None where its index is not."""
    if not host.peer:
        return None
    own = replace(host, name=spec.container_name, index=host.peer, mac=spec.container_mac, peer=host.index)
    return replace(own, master=0, alias="", group=0, port=None, netnsid=None)


def _named(name: str, mac: str, mtu: int) -> bytes:
    own = text(_IFNAME, name) + attribute(_ADDRESS, _packed(mac))
    return own + number(_MTU, mtu) if mtu else own


def _packed(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _create(nl: Netlink, doing: str, attrs: bytes) -> bool:
    flags = rtnetlink.NLM_F_CREATE | rtnetlink.NLM_F_EXCL
    try:
        nl.batch([Message(doing, rtnetlink.RTM_NEWLINK, flags, body=_body(attrs))])
    except KernelError as error:
        if error.errno == errno.EEXIST:
            return False
        raise
    return True


def remove_made(nl: Netlink, name: str, mac: str) -> bool:
    """Remove a link if it has this MAC address, by which its maker knows it; False if it is another one."""
    found = find(nl, name)
    return found is not None and found.mac == mac and remove(nl, name, found.index)


def remove(nl: Netlink, name: str, index: int = 0) -> bool:
    """Remove a link and with it the other end of a veth pair; False if there is none.

    With `index` it is the very link that was looked up: the name may have passed to another one meanwhile.
    """
    try:
        nl.batch([removal(name, index)])
    except KernelError as error:
        if error.errno == errno.ENODEV:
            return False
        raise
    return True


def removal(name: str, index: int = 0) -> Message:
    """Remove a link, by its index if that is given; refused with ENODEV if there is none."""
    body = _body(index=index) if index else _body(text(_IFNAME, name))
    return Message(f'could not remove "{name}"', rtnetlink.RTM_DELLINK, body=body)


def is_removal(kind: int, body: bytes, index: int) -> bool:
    """Tell whether a message that was heard says that a link is gone, and not only from its bridge."""
    if kind != rtnetlink.RTM_DELLINK:
        return False
    family, _, seen, _, _ = _HEAD.unpack_from(body)
    return family != rtnetlink.AF_BRIDGE and bool(seen == index)


def set_flags(name: str, index: int, on: int = 0, off: int = 0) -> Message:
    """Switch flags (IFF_UP, IFF_PROMISC) on and off."""
    word = "up" if on & IFF_UP else "down" if off & IFF_UP else "promiscuous mode of"
    body = _body(index=index, flags=on, change=on | off)
    return Message(f'could not set {word} "{name}"', rtnetlink.RTM_SETLINK, body=body)


def set_mac(name: str, index: int, mac: str) -> Message:
    """Set a link's MAC address; it then counts as set by hand and does not change by itself."""
    return _change(
        f'could not set the MAC address of "{name}" to {mac}', index, attribute(_ADDRESS, _packed(mac))
    )


def set_mtu(name: str, index: int, mtu: int) -> Message:
    """Set a link's MTU in bytes."""
    return _change(f'could not set the MTU of "{name}" to {mtu}', index, number(_MTU, mtu))


def set_alias(name: str, index: int, alias: str) -> Message:
    """Give a link a text of up to 255 bytes, which `ip link` shows; "" takes it away."""
    return _change(f'could not set the alias of "{name}"', index, attribute(_IFALIAS, alias.encode()))


def set_owner(name: str, alias: str) -> Message:
    """Tell by an alias whose a link is, and take it out of the group of unfinished ones."""
    body = _body(text(_IFNAME, name), attribute(_IFALIAS, alias.encode()), number(_GROUP, 0))
    return Message(f'could not set the alias of "{name}"', rtnetlink.RTM_SETLINK, body=body)


def set_master(name: str, index: int, master: int) -> Message:
    """Make a link a port of the bridge with index `master`; 0 takes it off its bridge."""
    return _change(f'could not make "{name}" a port of bridge {master}', index, number(_MASTER, master))


def set_arp_notify(name: str, index: int) -> Message:
    """Have a link announce its IPv4 addresses when it comes up: the sysctl of that name, /proc left alone."""
    settings = nest(_AF_SPEC, nest(socket.AF_INET, nest(_INET_SETTINGS, number(_ARP_NOTIFY, 1))))
    return _change(f'could not set arp_notify of "{name}"', index, settings)


def set_port(name: str, index: int, port: Port) -> Message:
    """Set the bridge port settings of a link."""
    settings = nest(
        _PROTINFO,
        attribute(_PORT_MODE, bytes([port.hairpin])),
        attribute(_PORT_ISOLATED, bytes([port.isolated])),
    )
    return Message(
        f'could not set hairpin mode and isolation of bridge port "{name}"',
        rtnetlink.RTM_SETLINK,
        body=_body(settings, index=index, family=rtnetlink.AF_BRIDGE),
    )


def set_port_flags(name: str, index: int) -> Message:
    """Switch on what the kernel has on for a new port of a bridge."""
    settings = nest(_PROTINFO, *(attribute(each, b"\1") for each in _PORT_FLAGS.values()))
    doing = f'could not switch {" and ".join(_PORT_FLAGS)} of bridge port "{name}" on'
    body = _body(settings, index=index, family=rtnetlink.AF_BRIDGE)
    return Message(doing, rtnetlink.RTM_SETLINK, body=body)


def _change(doing: str, index: int, attr: bytes) -> Message:
    return Message(doing, rtnetlink.RTM_SETLINK, body=_body(attr, index=index))


def _body(*attrs: bytes, index: int = 0, flags: int = 0, change: int = 0, family: int = 0) -> bytes:
    return _HEAD.pack(family, 0, index, flags, change) + b"".join(attrs)


def _look_up(name: str) -> Message:
    body = _body(text(_IFNAME, name), _WITHOUT_STATISTICS)
    return Message(f'look up "{name}"', rtnetlink.RTM_GETLINK, body=body)


def _found(answer: bytes | KernelError) -> Link | None:
    if isinstance(answer, bytes):
        return _parse(answer)
    if answer.errno == errno.ENODEV:
        return None
    raise answer


def _parse(payload: bytes) -> Link:
    _, _, index, flags, _ = _HEAD.unpack_from(payload)
    found = attributes(payload[_HEAD.size :], _SHOWN)
    info = attributes(found.get(_LINKINFO, b""))
    kind = shown_text(info.get(_INFO_KIND, b""))
    data = attributes(info.get(_INFO_DATA, b""), {_BRIDGE_VLAN_FILTERING}) if kind == "bridge" else {}
    return Link(
        name=shown_text(found.get(_IFNAME, b"")),
        index=index,
        kind=kind,
        mac=found.get(_ADDRESS, b"").hex(":"),
        mtu=shown_number(found.get(_MTU, b"")),
        flags=flags,
        operstate=_shown_operstate(found.get(_OPERSTATE, b"")),
        master=shown_number(found.get(_MASTER, b"")),
        peer=shown_number(found.get(_LINK, b"")) if kind == "veth" else 0,
        alias=shown_text(found.get(_IFALIAS, b"")),
        group=shown_number(found.get(_GROUP, b"")),
        port=_parse_port(info),
        vlan_filtering=any(data.get(_BRIDGE_VLAN_FILTERING, b"")) if kind == "bridge" else None,
        netnsid=shown_number(found[_NETNSID]) if _NETNSID in found else None,
    )


def _shown_operstate(payload: bytes) -> str:
    state = shown_number(payload)
    return _OPERSTATES[state] if state < len(_OPERSTATES) else "unknown"


def _parse_port(info: dict[int, bytes]) -> Port | None:
    if shown_text(info.get(_INFO_PORT_KIND, b"")) != "bridge":
        return None
    data = attributes(info.get(_INFO_PORT_DATA, b""), {_PORT_MODE, _PORT_ISOLATED})
    return Port(any(data.get(_PORT_MODE, b"")), any(data.get(_PORT_ISOLATED, b"")))
