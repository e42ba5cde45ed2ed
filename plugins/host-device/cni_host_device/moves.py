"""Move a device into the container and back, and remember what it was on the host.

The device's alias is its name on the host while it is away, as with the Go plugin, whose DEL reads it there.
Ours takes the name from the record: a container can change the alias.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from cni.errors import CniError, Code, KernelError
from cni.interface.conf import is_link_name
from cni.kernel import addr, link, link_move, netns
from cni.kernel.link_move import Side
from cni.kernel.rtnetlink import Netlink
from cni.log import note
from cni.state import attachments
from cni_host_device.plan import Given, parse_given

if TYPE_CHECKING:
    from cni.interface.pair import Sides
    from cni.kernel.link import Link
    from cni.kernel.netns import Netns
    from cni.request import Request
    from cni.undo import Undo
    from cni_host_device.conf import HostDeviceConf


def key_of(conf: HostDeviceConf, request: Request) -> attachments.Key:
    """Return the key of the attachment's record."""
    return attachments.Key(conf.plugin, conf.name, request.container_id, request.ifname)


def take(conf: HostDeviceConf, request: Request, undo: Undo, sides: Sides, device: Link) -> Link:
    """Move a device into the container under its name there; return it as it is there, down."""
    key = key_of(conf, request)
    addresses = tuple(each.address for each in addr.list_addrs(sides.host, device.index) if each.is_global)
    given = Given(device.name, device.kind, device.is_up, addresses)
    if link.find(sides.inside, request.ifname):
        raise CniError(
            Code.ALREADY_EXISTS,
            f'failed to move link {device.name}: "{request.ifname}" exists in {request.netns}',
            "the runtime must give another CNI_IFNAME, or DEL the earlier attachment first",
        )
    undo.add(f"give {device.name} back", give_back_by_record, key, request.netns)
    attachments.save(key, given.to_values(), sides.ns)
    with netns.own() as here:
        host, inside = Side(here, sides.host), Side(sides.ns, sides.inside)
        # Before the move: the alias goes with the device.
        sides.host.batch([link.set_alias(device.name, device.index, device.name)])
        moved = link_move.move(device, host, inside, request.ifname)
    attachments.save(key, given._replace(inner_index=moved.index).to_values(), sides.ns)
    return moved


def give_back_by_record(key: attachments.Key, path: str) -> None:
    """Give the device of a record back, wherever it is, and drop the record; succeed if it is gone."""
    saved = attachments.load(key)
    given = parse_given(saved.values) if saved else None
    if saved and given:
        ns = netns.find(path)
        if ns is None:
            _restore_on_host(given, key.ifname)
        else:
            with ns:
                if saved.is_of(ns):
                    _give_back(ns, given, key.ifname)
    attachments.drop(key)


def give_back_unrecorded(path: str, ifname: str) -> None:
    """Give a device back that the Go plugin has moved: its alias is its name on the host."""
    ns = netns.find(path)
    if ns is None:
        return
    with ns:
        with Netlink(ns) as nl:
            inside = link.find(nl, ifname)
        if inside and is_link_name(inside.alias):
            _give_back(ns, Given(inside.alias, inside.kind, is_up=False, inner_index=inside.index), ifname)


def _give_back(ns: Netns, given: Given, ifname: str) -> None:
    with Netlink() as host, Netlink(ns) as inside:
        device = _find_inside(inside, given, ifname)
        if device is None:
            _restore_on_host(given, ifname)
            return
        with netns.own() as here:
            name = _free_name(host, given.name)
            moved = link_move.move(device, Side(ns, inside), Side(here, host), name)
        _restore(host, moved, given)


def _find_inside(nl: Netlink, given: Given, ifname: str) -> Link | None:
    """Return the device in the container. The container may have renamed it, but cannot change its index."""
    device = link.find_by_index(nl, given.inner_index) if given.inner_index else link.find(nl, ifname)
    return device if device and device.kind == given.kind else None


def _free_name(host: Netlink, name: str) -> str:
    """Return the device's name, or another one if a link of the host has got that name meanwhile."""
    if not link.find(host, name):
        return name
    other = next(f"dev{number}" for number in range(1, 1000) if not link.find(host, f"dev{number}"))
    note(f"host-device: {name} exists on the host, the device that was called so becomes {other}")
    return other


def _restore_on_host(given: Given, ifname: str) -> None:
    """Restore a device that the kernel has returned to the host: it then has the container's name."""
    with Netlink() as host:
        for name in (given.name, ifname):
            device = link.find(host, name)
            if device and device.kind == given.kind and device.alias == given.name:
                if name != given.name and not link.find(host, given.name):
                    host.batch([link.set_flags(name, device.index, off=link.IFF_UP)])
                    host.batch([link.set_name(name, device.index, given.name)])
                    device = link.get(host, given.name)
                _restore(host, device, given)
                return


def _restore(host: Netlink, device: Link, given: Given) -> None:
    host.batch([link.set_alias(device.name, device.index, "")])
    if given.is_up:
        host.batch([link.set_flags(device.name, device.index, on=link.IFF_UP)])
    for each in given.addresses:
        # The host may have given the address to another link meanwhile.
        with suppress(KernelError):
            addr.ensure(host, device.name, device.index, each, dad=False)
