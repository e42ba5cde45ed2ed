"""ADD: move the device into the container."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.interface import default_route, ipam, layer3
from cni.interface.pair import open_sides
from cni.interface.plan import Layer3, complete_routes, ranked, required_ips
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
            leased = ipam.lease(conf, request, undo) if conf.ipam.type else Result()
            ips = tuple(ip._replace(interface=0) for ip in leased.ips)
            return Result((interface,), ips, leased.routes, ipam.dns(conf, leased))
        own = moves.take(conf, request, undo, sides, device.link)
        given = ipam.lease(conf, request, undo) if conf.ipam.type else None
        ips = required_ips(given, conf.ipam.type, 0) if given else ()
        routes = ranked(given.routes, default_route.rank(conf, sides, own, undo)) if given else ()
        if ips:
            layer3.configure(Layer3(ips, complete_routes(routes, ips)), sides, own)
        else:
            layer3.switch_on(sides.inside, own)
        interface = Interface(own.name, own.mac, request.netns, own.mtu, pci_id=device.bus_id)
        return Result((interface,), ips, routes, ipam.dns(conf, given))
