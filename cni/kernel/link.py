"""Operations that all links share: look-up, removal, flags, MAC address, MTU, alias, owner and master.

Each kind has a module of its own (`veth`, `bridge`), which creates its links and reads their settings. Most
look-ups are by name or index. Every function takes the `Netlink` of the namespace that the link is in.
`set_x` only return the message, so that several changes go to the kernel in one batch.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cni.errors import CniError, Code, KernelError
from cni.kernel import rtnetlink
from cni.kernel.attributes import attribute, attributes, nest, number, shown_number, shown_text, text
from cni.kernel.rtnetlink import Message, Netlink

if TYPE_CHECKING:
    from collections.abc import Sequence


IFF_UP, IFF_LOOPBACK, IFF_PROMISC, IFF_ALLMULTI, _IFF_LOWER_UP = 0x1, 0x8, 0x100, 0x200, 0x10000
# The group of new links that have no owner yet: the kernel accepts no alias in the message that creates a
# link.
UNFINISHED = int.from_bytes(b"pycn")
# RFC 2863, section 6, in this order.
_OPERSTATES = ("unknown", "not-present", "down", "lower-layer-down", "testing", "dormant", "up")
WITHOUT_CARRIER = {"not-present", "down", "lower-layer-down"}

# struct ifinfomsg and the attributes, <linux/if_link.h>. Public names are for the modules of kinds.
HEAD = struct.Struct("=BxHiII")  # family, device type, index, flags, which of them change
_ADDRESS, IFNAME, _MTU, LINK, MASTER, PROTINFO = 1, 3, 4, 5, 10, 12
_OPERSTATE, _LINKINFO, _IFALIAS, GROUP, NET_NS_FD, _EXT_MASK, _NETNSID = 16, 18, 20, 27, 28, 29, 37
_TXQLEN = 13
_SHOWN = {_ADDRESS, IFNAME, _MTU, LINK, MASTER, _TXQLEN, _OPERSTATE, _LINKINFO, _IFALIAS, GROUP, _NETNSID}
_INFO_KIND, _INFO_DATA, _INFO_PORT_KIND, _INFO_PORT_DATA = 1, 2, 4, 5
_AF_SPEC, _INET_SETTINGS, _ARP_NOTIFY = 26, 1, 22
_WITHOUT_STATISTICS = number(_EXT_MASK, 0x8)


@dataclass(frozen=True, slots=True)
class Link:
    """A link as the kernel shows it. Indices are 0 where there is none; `kind` is "" for hardware.

    `peer` is the index of a veth's other end, `parent` that of the link below a VLAN, macvlan or ipvlan.
    Either is an index of the namespace that has the number `netnsid` here, None for the link's own
    namespace. `data` are the settings of the kind (IFLA_INFO_DATA), which the module of the kind reads.
    `port_data` are the settings as a port of a link of kind `port_kind`, "" for a link that has no master.
    `operstate` agrees with the carrier.
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
    netnsid: int | None = None
    parent: int = 0
    data: bytes = b""
    port_kind: str = ""
    port_data: bytes = b""
    queue_length: int = 0

    @property
    def local_peer(self) -> int:
        """Return the index of the other end if that is in the same namespace, else 0."""
        return self.peer if self.netnsid is None else 0

    @property
    def is_up(self) -> bool:
        """Return whether the link is switched on, whatever its carrier."""
        return bool(self.flags & IFF_UP)

    @property
    def has_carrier(self) -> bool:
        """Return whether the link is on and what it leads to is, too: for a veth its other end."""
        return bool(self.flags & _IFF_LOWER_UP)

    @property
    def is_promisc(self) -> bool:
        """Return whether promiscuous mode was requested by IFF_PROMISC."""
        return bool(self.flags & IFF_PROMISC)


def find(nl: Netlink, name: str) -> Link | None:
    """Return the link with a name; None if there is none."""
    return _parse_answer(nl.ask(_look_up(name))[0])


def get_operstate(nl: Netlink, name: str) -> str:
    """Return the operational state of a link, as "up". Raise CniError 100 if there is no such link.

    This is the state that the kernel shows. A bridge port forwards from the moment that it is "up".
    """
    [answer] = _ask(nl, [name])
    return _shown_operstate(attributes(answer[HEAD.size :], {_OPERSTATE}).get(_OPERSTATE, b""))


def find_by_index(nl: Netlink, index: int) -> Link | None:
    """Return the link with an index; None if there is none."""
    body = pack(_WITHOUT_STATISTICS, index=index)
    return _parse_answer(nl.ask(Message(f"look up link {index}", rtnetlink.RTM_GETLINK, body=body))[0])


def get(nl: Netlink, name: str) -> Link:
    """Return the link with a name. Raise CniError 100 if there is none."""
    return get_all(nl, [name])[0]


def get_all(nl: Netlink, names: Sequence[str], *before: Message) -> list[Link]:
    """Return the links with these names. Raise CniError 100 if there is none of a name.

    The messages `before` precede the look-ups in the same send.
    """
    return [_parse(each) for each in _ask(nl, names, *before)]


def _ask(nl: Netlink, names: Sequence[str], *before: Message) -> list[bytes]:
    asked = {name: _look_up(name) for name in names}
    try:
        return nl.request(*before, *asked.values())[len(before) :]
    except KernelError as error:
        # A message of `before` may have been refused for the same reason. It is not about these links.
        missing = [name for name, message in asked.items() if message.doing == error.args[0]]
        if error.errno == errno.ENODEV and missing:
            raise CniError(Code.KERNEL, f'failed to lookup "{missing[0]}": Link not found') from error
        raise


def find_all(
    nl: Netlink, names: Sequence[str], after: Message
) -> tuple[list[Link | None], bytes | KernelError]:
    """Return the links with these names, or None, and the response to `after` or its refusal, in one send."""
    *answers, other = nl.ask(*map(_look_up, names), after)
    return [_parse_answer(each) for each in answers], other


def list_links(nl: Netlink, master: int = 0, *, settled: bool = True) -> list[Link]:
    """List the links of the namespace, or the ports of the bridge with index `master`.

    `settled` is as in `Netlink.dump`.
    """
    wanted = number(MASTER, master) if master else b""
    message = Message("list links", rtnetlink.RTM_GETLINK, body=pack(_WITHOUT_STATISTICS, wanted))
    return [_parse(each) for each in nl.dump(message, settled=settled)]


def create(nl: Netlink, doing: str, kind: str, data: bytes, *attrs: bytes) -> bool:
    """Create a link of a kind, down; return False if a link of that name exists. Raise KernelError.

    `data` are the settings of the kind. `attrs` are those of any link, `identity` among them.
    """
    info = nest(_LINKINFO, text(_INFO_KIND, kind), nest(_INFO_DATA, data))
    flags = rtnetlink.NLM_F_CREATE | rtnetlink.NLM_F_EXCL
    try:
        nl.batch([Message(doing, rtnetlink.RTM_NEWLINK, flags, body=pack(*attrs, info))])
    except KernelError as error:
        if error.errno == errno.EEXIST:
            return False
        raise
    return True


def identity(name: str, mac: str, mtu: int = 0) -> bytes:
    """Return the attributes that name a new link. `mac` "" and `mtu` 0 leave these to the kernel."""
    own = text(IFNAME, name) + (attribute(_ADDRESS, _packed(mac)) if mac else b"")
    return own + number(_MTU, mtu) if mtu else own


def pack(*attrs: bytes, index: int = 0, flags: int = 0, change: int = 0, family: int = 0) -> bytes:
    """Return a struct ifinfomsg with attributes: the body of a message about a link."""
    return HEAD.pack(family, 0, index, flags, change) + b"".join(attrs)


def _packed(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def new_mac() -> str:
    """Return a random MAC address: unicast, locally administered."""
    first, *rest = os.urandom(6)
    return ":".join(f"{byte:02x}" for byte in [(first | 0x02) & 0xFE, *rest])


def remove_created(nl: Netlink, name: str, mac: str) -> bool:
    """Remove a link that the caller has created with this MAC address; return False if it is another link."""
    present = find(nl, name)
    return present is not None and present.mac == mac and remove(nl, name, present.index)


def remove(nl: Netlink, name: str, index: int = 0) -> bool:
    """Remove a link and with it the other end of a veth pair; return False if there is none.

    With `index` it is the very link that was looked up: another link may have the name meanwhile.
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
    body = pack(index=index) if index else pack(text(IFNAME, name))
    return Message(f'could not remove "{name}"', rtnetlink.RTM_DELLINK, body=body)


def set_flags(name: str, index: int, on: int = 0, off: int = 0) -> Message:
    """Switch flags (IFF_UP, IFF_PROMISC, IFF_ALLMULTI) on and off."""
    mode = "promiscuous" if (on | off) & IFF_PROMISC else "all-multicast"
    word = "up" if on & IFF_UP else "down" if off & IFF_UP else f"{mode} mode of"
    body = pack(index=index, flags=on, change=on | off)
    return Message(f'could not set {word} "{name}"', rtnetlink.RTM_SETLINK, body=body)


def set_mac(name: str, index: int, mac: str) -> Message:
    """Set a link's MAC address; the kernel then no longer changes it by itself."""
    return _change(
        f'could not set the MAC address of "{name}" to {mac}', index, attribute(_ADDRESS, _packed(mac))
    )


def set_mtu(name: str, index: int, mtu: int) -> Message:
    """Set a link's MTU in bytes."""
    return _change(f'could not set the MTU of "{name}" to {mtu}', index, number(_MTU, mtu))


def set_queue_length(name: str, index: int, length: int) -> Message:
    """Set the length of a link's transmit queue in packets (`txqueuelen`)."""
    return _change(f'could not set the queue length of "{name}" to {length}', index, number(_TXQLEN, length))


def set_name(name: str, index: int, new_name: str) -> Message:
    """Rename a link, which must be down on older kernels."""
    return _change(f'could not rename "{name}" to "{new_name}"', index, text(IFNAME, new_name))


def set_alias(name: str, index: int, alias: str) -> Message:
    """Set the alias of a link, up to 255 bytes, which `ip link` shows; "" removes it."""
    return _change(f'could not set the alias of "{name}"', index, attribute(_IFALIAS, alias.encode()))


def set_owner(name: str, alias: str) -> Message:
    """Set the alias that names a link's owner, and take the link out of the group `UNFINISHED`."""
    body = pack(text(IFNAME, name), attribute(_IFALIAS, alias.encode()), number(GROUP, 0))
    return Message(f'could not set the alias of "{name}"', rtnetlink.RTM_SETLINK, body=body)


def set_unfinished(name: str, index: int) -> Message:
    """Put a link that has no owner yet into the group `UNFINISHED`."""
    return _change(f'could not set the group of "{name}"', index, number(GROUP, UNFINISHED))


def set_name_and_owner(name: str, index: int, new_name: str, alias: str) -> Message:
    """Rename a link that is down, and do what `set_owner` does."""
    attrs = text(IFNAME, new_name), attribute(_IFALIAS, alias.encode()), number(GROUP, 0)
    return _change(f'could not rename "{name}" to "{new_name}"', index, b"".join(attrs))


def set_master(name: str, index: int, master: int) -> Message:
    """Make a link a port of the bridge with index `master`; 0 removes it from its bridge."""
    return _change(f'could not make "{name}" a port of bridge {master}', index, number(MASTER, master))


def set_arp_notify(name: str, index: int) -> Message:
    """Let a link announce its IPv4 addresses when it comes up: the sysctl arp_notify, without /proc."""
    settings = nest(_AF_SPEC, nest(socket.AF_INET, nest(_INET_SETTINGS, number(_ARP_NOTIFY, 1))))
    return _change(f'could not set arp_notify of "{name}"', index, settings)


def _change(doing: str, index: int, attr: bytes) -> Message:
    return Message(doing, rtnetlink.RTM_SETLINK, body=pack(attr, index=index))


def _look_up(name: str) -> Message:
    body = pack(text(IFNAME, name), _WITHOUT_STATISTICS)
    return Message(f'look up "{name}"', rtnetlink.RTM_GETLINK, body=body)


def _parse_answer(answer: bytes | KernelError) -> Link | None:
    if isinstance(answer, bytes):
        return _parse(answer)
    if answer.errno == errno.ENODEV:
        return None
    raise answer


def _parse(payload: bytes) -> Link:
    _, _, index, flags, _ = HEAD.unpack_from(payload)
    shown = attributes(payload[HEAD.size :], _SHOWN)
    info = attributes(shown.get(_LINKINFO, b""))
    kind = shown_text(info.get(_INFO_KIND, b""))
    other = shown_number(shown.get(LINK, b""))
    return Link(
        name=shown_text(shown.get(IFNAME, b"")),
        index=index,
        kind=kind,
        mac=shown.get(_ADDRESS, b"").hex(":"),
        mtu=shown_number(shown.get(_MTU, b"")),
        flags=flags,
        operstate=_settled_operstate(_shown_operstate(shown.get(_OPERSTATE, b"")), flags),
        master=shown_number(shown.get(MASTER, b"")),
        peer=other if kind == "veth" else 0,
        alias=shown_text(shown.get(_IFALIAS, b"")),
        group=shown_number(shown.get(GROUP, b"")),
        netnsid=shown_number(shown[_NETNSID]) if _NETNSID in shown else None,
        parent=0 if kind == "veth" else other,
        data=info.get(_INFO_DATA, b""),
        port_kind=shown_text(info.get(_INFO_PORT_KIND, b"")),
        port_data=info.get(_INFO_PORT_DATA, b""),
        queue_length=shown_number(shown.get(_TXQLEN, b"")),
    )


def _settled_operstate(state: str, flags: int) -> str:
    """Return the state that a link has when the kernel has processed its last change of carrier.

    The carrier changes at once, and the state some time later, on a busy machine much later.
    """
    has_carrier = bool(flags & _IFF_LOWER_UP)
    if has_carrier and state in WITHOUT_CARRIER:
        return "up"
    return "down" if state == "up" and not has_carrier else state


def _shown_operstate(payload: bytes) -> str:
    state = shown_number(payload)
    return _OPERSTATES[state] if state < len(_OPERSTATES) else "unknown"
