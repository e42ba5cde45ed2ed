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
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cni.errors import CniError, Code, KernelError
from cni.faults import point
from cni.kernel import rtnetlink
from cni.kernel.attributes import attribute, attributes, nest, number, shown_number, shown_text, text
from cni.kernel.rtnetlink import RTMGRP_LINK, Message, Netlink

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cni.kernel.netns import Netns

IFF_UP, IFF_LOOPBACK, IFF_PROMISC = 0x1, 0x8, 0x100
# The group of new links that have no owner yet: the kernel accepts no alias in the message that creates a
# link.
UNFINISHED = int.from_bytes(b"pycn")
# The variable that says when DEL returns: when the link is gone, or when the kernel has acknowledged its
# removal.
ANSWER_VARIABLE = "PYCNI_DEL"
GONE, ACKNOWLEDGED = "gone", "ack"
_LOOK_AGAIN_S = 0.02
# RFC 2863, section 6, in this order.
_OPERSTATES = ("unknown", "not-present", "down", "lower-layer-down", "testing", "dormant", "up")

# struct ifinfomsg and the attributes, <linux/if_link.h>. Public names are for the modules of kinds.
_HEAD = struct.Struct("=BxHiII")  # family, device type, index, flags, which of them change
_ADDRESS, IFNAME, _MTU, LINK, MASTER, PROTINFO = 1, 3, 4, 5, 10, 12
_OPERSTATE, _LINKINFO, _IFALIAS, GROUP, NET_NS_FD, _EXT_MASK, _NETNSID = 16, 18, 20, 27, 28, 29, 37
_SHOWN = {_ADDRESS, IFNAME, _MTU, LINK, MASTER, _OPERSTATE, _LINKINFO, _IFALIAS, GROUP, _NETNSID}
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

    @property
    def local_peer(self) -> int:
        """Return the index of the other end if that is in the same namespace, else 0."""
        return self.peer if self.netnsid is None else 0

    @property
    def is_up(self) -> bool:
        """Return whether the link is switched on, whatever its carrier."""
        return bool(self.flags & IFF_UP)

    @property
    def is_promisc(self) -> bool:
        """Return whether promiscuous mode was requested by IFF_PROMISC."""
        return bool(self.flags & IFF_PROMISC)


def find(nl: Netlink, name: str) -> Link | None:
    """Return the link with a name; None if there is none."""
    return _parse_answer(nl.ask(_look_up(name))[0])


def get_operstate(nl: Netlink, name: str) -> str:
    """Return the operational state of a link, as "up". Raise CniError 100 if there is no such link."""
    [answer] = _ask(nl, [name])
    return _shown_operstate(attributes(answer[_HEAD.size :], {_OPERSTATE}).get(_OPERSTATE, b""))


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


def find_all(nl: Netlink, names: Sequence[str], after: Message) -> tuple[list[Link | None], bytes]:
    """Return the links with these names, or None, and the response to `after`, all in one send."""
    *answers, other = nl.ask(*map(_look_up, names), after)
    if isinstance(other, KernelError):
        raise other
    return [_parse_answer(each) for each in answers], other


def list_links(nl: Netlink, master: int = 0) -> list[Link]:
    """List the links of the namespace, or the ports of the bridge with index `master`."""
    wanted = number(MASTER, master) if master else b""
    message = Message("list links", rtnetlink.RTM_GETLINK, body=pack(_WITHOUT_STATISTICS, wanted))
    return [_parse(each) for each in nl.dump(message)]


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
    return _HEAD.pack(family, 0, index, flags, change) + b"".join(attrs)


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


def is_removal(kind: int, body: bytes, index: int) -> bool:
    """Return whether a message is RTM_DELLINK for this index, and not a port's removal from its bridge."""
    if kind != rtnetlink.RTM_DELLINK:
        return False
    family, _, seen, _, _ = _HEAD.unpack_from(body)
    return family != rtnetlink.AF_BRIDGE and bool(seen == index)


def is_early(env: Mapping[str, str]) -> bool:
    """Return whether DEL continues before the kernel acknowledges a removal.

    Only if the environment asks for it: a process that exits after its answer waits for the kernel anyway.
    """
    return env.get(ANSWER_VARIABLE) == GONE


def remove_in(ns: Netns | None, name: str, index: int, *, early: bool) -> bool:
    """Remove the link with this index; return False if there is none. Raise KernelError.

    It is a link of the namespace `ns`, or of the host without one. `name` is for messages only: the
    container may have renamed the link. With `early`, return as soon as the kernel has announced that the
    link is gone. The kernel acknowledges the removal of a veth pair after 17 to 20 ms, when grace periods
    have passed and memory has been freed. After about 1 ms both ends are unlisted and the kernel announces
    it: the pair can neither be seen nor used any more. A DEL that continues then takes 3 ms instead of 20.
    """
    if early:
        return _remove_early(ns, name, index)
    with Netlink(ns) as nl:
        return remove(nl, name, index)


def _remove_early(ns: Netns | None, name: str, index: int) -> bool:
    # Only DEL in a worker needs it.
    from cni.kernel import background

    with ExitStack() as listening, ExitStack() as stack:
        with ns.entered() if ns else nullcontext():
            listener = listening.enter_context(Netlink(groups=RTMGRP_LINK))
            sender = stack.enter_context(Netlink())
        request = Removal(sender, removal(name, index), stack.pop_all())
        background.start(request.run)
        while not request.is_over:
            if any(is_removal(kind, body, index) for kind, body in listener.heard(_LOOK_AGAIN_S)):
                point("netlink.gone")
                return True
    # The kernel has acknowledged or refused, and no announcement came: there was none, or it was dropped.
    if request.error is None:
        return True
    if isinstance(request.error, KernelError) and request.error.errno == errno.ENODEV:
        return False
    raise request.error


class Removal:
    """A request that another thread sends; it closes `stack`, the socket among it."""

    def __init__(self, sender: Netlink, message: Message, stack: ExitStack) -> None:
        self._sender = sender
        self._message = message
        self._stack = stack
        self.is_over = False
        self.error: Exception | None = None

    def run(self) -> None:
        """Send the request and wait for its acknowledgement; raise nothing."""
        try:
            with self._stack:
                self._sender.batch([self._message])
        except Exception as error:  # noqa: BLE001 - the thread that waits raises it
            self.error = error
        finally:
            # Also after an error: the other thread waits for this.
            self.is_over = True


def set_flags(name: str, index: int, on: int = 0, off: int = 0) -> Message:
    """Switch flags (IFF_UP, IFF_PROMISC) on and off."""
    word = "up" if on & IFF_UP else "down" if off & IFF_UP else "promiscuous mode of"
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
    _, _, index, flags, _ = _HEAD.unpack_from(payload)
    shown = attributes(payload[_HEAD.size :], _SHOWN)
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
        operstate=_shown_operstate(shown.get(_OPERSTATE, b"")),
        master=shown_number(shown.get(MASTER, b"")),
        peer=other if kind == "veth" else 0,
        alias=shown_text(shown.get(_IFALIAS, b"")),
        group=shown_number(shown.get(GROUP, b"")),
        netnsid=shown_number(shown[_NETNSID]) if _NETNSID in shown else None,
        parent=0 if kind == "veth" else other,
        data=info.get(_INFO_DATA, b""),
        port_kind=shown_text(info.get(_INFO_PORT_KIND, b"")),
        port_data=info.get(_INFO_PORT_DATA, b""),
    )


def _shown_operstate(payload: bytes) -> str:
    state = shown_number(payload)
    return _OPERSTATES[state] if state < len(_OPERSTATES) else "unknown"
