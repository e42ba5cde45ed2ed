"""ADD: move the device into the container."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.interface import ipam, single
from cni.interface.pair import open_sides
from cni.result import Interface, Result
from cni_host_device import devices, moves

if TYPE_CHECKING:
    from cni.request import Request
    from cni.undo import Undo
    from cni_host_device.conf import HostDeviceConf


def add(conf: HostDeviceConf, request: Request, undo: Undo) -> Result:
    """Move the device, and give it the addresses of IPAM.

    A device that a program in user space drives stays where it is: the result names it for that program.
    """
    with open_sides(request.netns) as sides:
        moves.check_name(conf, request, sides)
        device = devices.find(conf, sides.host)
        if device.link is None:
            interface = Interface(request.ifname, sandbox=request.netns, pci_id=device.bus_id)
            given = ipam.lease(conf, request, undo) if conf.ipam.type else Result()
            ips = tuple(ip._replace(interface=0) for ip in given.ips)
            return Result((interface,), ips, given.routes, ipam.dns(conf, given))
        own = moves.take(conf, request, undo, sides, device.link)
        leased = ipam.lease(conf, request, undo) if conf.ipam.type else None
        result = single.complete(conf, request, undo, sides, own, leased)
        return result._replace(interfaces=(result.interfaces[0]._replace(pci_id=device.bus_id),))
