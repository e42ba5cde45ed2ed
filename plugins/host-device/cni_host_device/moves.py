"""Move a device into the container and back, and remember what it was on the host.

The device's alias is its name on the host while it is away, as with the Go plugin, whose DEL reads it there.
Ours takes the name from the record: a container can change the alias. It can also put a link of its own in
the device's place. Such a link does not come to the host, or comes without the device's addresses.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.interface import single
from cni.interface.conf import is_link_name
from cni.interface.plan import plan_pair
from cni.kernel import addr, link, link_move, netns
from cni.kernel.link_move import Side
from cni.kernel.rtnetlink import Netlink
from cni.log import note
from cni.state import attachments
from cni_host_device.plan import Given, Place, parse_given

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.interface.pair import Sides
    from cni.kernel.link import Link
    from cni.kernel.netns import Netns
    from cni.kernel.rtnetlink import Message
    from cni.request import Request
    from cni.state.attachments import Record
    from cni.undo import Undo
    from cni_host_device.conf import HostDeviceConf

# The time in which the kernel returns hardware of a namespace that has ended.
_RETURNED_WITHIN_S = 2.0
_PAUSE_S = 0.02


def key_of(conf: HostDeviceConf, request: Request) -> attachments.Key:
    """Return the key of the attachment's record."""
    return attachments.Key(conf.plugin, conf.name, request.container_id, request.ifname)


def take(conf: HostDeviceConf, request: Request, undo: Undo, sides: Sides, device: Link) -> Link:
    """Move a device into the container under its name there; return it as it is there, down."""
    key = key_of(conf, request)
    given = _describe(sides.host, device, key)
    undo.add(f"give {device.name} back", give_back_by_record, key, request.netns)
    attachments.save(key, given.to_values(), sides.ns)
    with netns.own() as here:
        host, inside = Side(here, sides.host), Side(sides.ns, sides.inside)
        # Before the move: the alias goes with the device.
        sides.host.batch([link.set_alias(device.name, device.index, device.name)])
        moved = link_move.move(device, host, inside, request.ifname)
    attachments.save(key, given._replace(place=Place.of(moved)).to_values(), sides.ns)
    return moved


def check_name(conf: HostDeviceConf, request: Request, sides: Sides) -> None:
    """Raise CniError 105 or 4 if the device cannot have its name in the container."""
    single.check_name(sides.inside, plan_pair(conf, request), "failed to move link")


def _describe(nl: Netlink, device: Link, key: attachments.Key) -> Given:
    addresses = tuple(each.address for each in addr.list_addrs(nl, device.index) if each.is_global)
    alias = device.alias
    if alias == device.name:
        # An ADD that was killed before the move has set it, after its record was saved.
        saved = attachments.load(key)
        before = parse_given(saved.values) if saved else None
        alias = before.alias if before and before.name == device.name else ""
    bus = _bus_of(device.name)
    return Given(device.name, device.kind, alias, bus, device.mac, device.mtu, device.is_up, addresses)


def _bus_of(name: str) -> str:
    try:
        return os.path.basename(os.readlink(f"/sys/class/net/{name}/device"))  # noqa: PTH115, PTH119
    except OSError:
        return ""


def give_back_by_record(key: attachments.Key, path: str) -> None:
    """Move the device of a record back, wherever it is, and drop the record; succeed if it is gone."""
    saved = attachments.load(key)
    given = parse_given(saved.values) if saved else None
    if saved and given:
        with _opened(saved, path) as ns:
            if ns is None or not _give_back(ns, given, key.ifname):
                _restore_on_host(given, key.ifname, is_awaited=ns is None)
    attachments.drop(key)


@contextmanager
def _opened(saved: Record, path: str) -> Iterator[Netns | None]:
    """Open the namespace of a record; None if it is gone. A runtime may send no path, or a new owner's."""
    for each in dict.fromkeys((path, saved.netns)):
        ns = netns.find(each)
        if ns is None:
            continue
        with ns:
            if saved.is_of(ns):
                yield ns
                return
    yield None


def give_back_unrecorded(conf: HostDeviceConf, path: str, ifname: str) -> None:
    """Move a device back that the Go plugin has taken: its alias is its name on the host.

    The container can write the alias. So a link stays whose other end is in the container, too, or whose
    name the host has: that device is back already.
    """
    ns = netns.find(path)
    if ns is None:
        return
    with ns:
        with Netlink(ns) as nl, Netlink() as host:
            inside = link.find(nl, ifname)
            if inside is None or not is_link_name(inside.alias) or inside.local_peer:
                return
            if conf.device not in {"", inside.alias} or link.find(host, inside.alias):
                return
        _give_back(ns, Given(inside.alias, inside.kind, place=Place.of(inside)), ifname)


def _give_back(ns: Netns, given: Given, ifname: str) -> bool:
    """Move the device to the host; return False if it is not in the container."""
    with Netlink() as host, Netlink(ns) as inside, netns.own() as here:
        device = _find_inside(inside, given, ifname)
        if device is None:
            return False
        name = _free_name(host, given.name)
        moved = link_move.move(device, Side(ns, inside), Side(here, host), name)
        if not given.is_same(device):
            note(
                f"host-device: {name} may be another link than that of ADD: it stays down, without addresses"
            )
            given = Given(given.name, given.kind)
        _restore(host, moved, given)
        return True


def _find_inside(nl: Netlink, given: Given, ifname: str) -> Link | None:
    """Return the device in the container, which may have renamed it."""
    links = [each for each in link.list_links(nl) if not each.flags & link.IFF_LOOPBACK]
    best = max(links, key=lambda each: given.rank(each, ifname), default=None)
    return best if best and given.rank(best, ifname) else None


def _free_name(host: Netlink, name: str) -> str:
    """Return the device's name, or another one if a link of the host has got that name meanwhile."""
    names = {each.name for each in link.list_links(host)}
    if name not in names:
        return name
    other = next(each for number in range(len(names) + 1) if (each := f"dev{number}") not in names)
    note(f"host-device: {name} exists on the host, the device that was called so becomes {other}")
    return other


def _restore_on_host(given: Given, ifname: str, *, is_awaited: bool) -> None:
    """Restore a device that is on the host: ADD has not moved it, or the kernel has returned it.

    The kernel returns hardware some time after its namespace has ended, under the container's name for it.
    """
    deadline = time.monotonic() + (_RETURNED_WITHIN_S if is_awaited and not given.kind else 0)
    with Netlink() as host:
        while (device := _find_on_host(host, given)) is None:
            if time.monotonic() >= deadline:
                return
            time.sleep(_PAUSE_S)
        name = device.name
        if name != given.name and (name == ifname or name.startswith("dev")):
            name = _free_name(host, given.name)
        _restore(host, device, given, name)


def _find_on_host(host: Netlink, given: Given) -> Link | None:
    for device in link.list_links(host):
        is_on_bus = bool(given.bus) and _bus_of(device.name) == given.bus
        if device.kind == given.kind and (is_on_bus or device.alias == given.name):
            return device
    return None


def _restore(host: Netlink, device: Link, given: Given, name: str = "") -> None:
    """Make the device what it was; `name` is its new name. What the kernel refuses is noted."""
    name, index = name or device.name, device.index
    changes: list[Message] = []
    if name != device.name:
        changes += [
            link.set_flags(device.name, index, off=link.IFF_UP),
            link.set_name(device.name, index, name),
        ]
    if given.mac not in {"", device.mac}:
        changes.append(link.set_mac(name, index, given.mac))
    if given.mtu not in {0, device.mtu}:
        changes.append(link.set_mtu(name, index, given.mtu))
    # IPv6 addresses need a link that is up: the kernel drops them when it switches the link off.
    changes += [link.set_flags(name, index, on=link.IFF_UP)] if given.is_up else []
    changes += [addr.add(name, index, each) for each in given.addresses]
    # At last: by the alias the next DEL finds a device of which this one was killed.
    changes.append(link.set_alias(name, index, given.alias))
    for refusal in host.attempt(changes):
        if refusal and refusal.errno == errno.ENODEV:
            raise CniError(
                Code.TRY_AGAIN, f"{name} is gone again", "another call has moved it: call DEL again"
            )
        if refusal and refusal.errno != errno.EEXIST:
            note(f"host-device: {refusal}")
