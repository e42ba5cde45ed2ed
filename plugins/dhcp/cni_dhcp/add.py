"""ADD: lease an address through the container's link."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.kernel import link
from cni.kernel.netns import open_netns
from cni.kernel.rtnetlink import Netlink
from cni.log import note
from cni_dhcp import records
from cni_dhcp.delete import delete
from cni_dhcp.exchange import Exchange
from cni_dhcp.lease import Identity
from cni_dhcp.packets import MalformedError
from cni_dhcp.plan import plan_options, plan_result

if TYPE_CHECKING:
    from cni.kernel.link import Link
    from cni.kernel.netns import Netns
    from cni.request import Request
    from cni.result import Result
    from cni.undo import Undo
    from cni_dhcp.conf import DhcpConf

_UP_WITHIN_S = 2.5
_LOOK_EVERY_S = 0.002


def add(conf: DhcpConf, request: Request, undo: Undo) -> Result:
    """Return the address, the routes and the DNS settings that a server gives. Raise CniError 11."""
    if conf.ipam.daemon_socket_path:
        note("dhcp: ipam.daemonSocketPath has no effect: there is no daemon")
    options = plan_options(conf, request.container_id, request.ifname, request.args)
    key = records.key_of(conf, request)
    with open_netns(request.netns) as ns:
        found = _switch_on(ns, request.ifname, undo)
        identity = Identity(bytes.fromhex(found.mac.replace(":", "")), options)
        undo.add("release the lease", delete, conf, request)
        with Exchange(ns, request.ifname, identity) as exchange:
            # On record before the server gives it: a DEL after a kill releases it.
            reply, lease = exchange.acquire(
                conf.ipam.timeout_seconds, lambda offer: records.save(key, offer, ns)
            )
        try:
            result = plan_result(reply.message, conf.ipam.priority)
        except MalformedError as error:
            raise CniError(
                Code.IO_FAILURE,
                f"DHCP server {lease.server} has sent a malformed acknowledgement: {error}",
                "Correct the options that the server sends.",
            ) from error
        records.save(key, lease, ns)
    if lease.expires_s is not None:
        records.HELPER.wake()
    return result


def _switch_on(ns: Netns, ifname: str, undo: Undo) -> Link:
    """Return the container's link, which is up and carries traffic if that takes a moment only."""
    with Netlink(ns) as inside:
        found = link.get(inside, ifname)
        if not found.is_up:
            undo.add(f"set {ifname} down", _switch_off, ns.path, ifname, found.mac)
            inside.batch([link.set_flags(ifname, found.index, on=link.IFF_UP)])
        deadline = time.monotonic() + _UP_WITHIN_S
        # Without a carrier the exchange fails in its own time.
        while time.monotonic() < deadline and link.get_operstate(inside, ifname) not in {"up", "unknown"}:
            time.sleep(_LOOK_EVERY_S)
    if len(found.mac) != 17:
        raise CniError(
            Code.INVALID_CONFIG,
            f"{ifname} has no MAC address of Ethernet: DHCP needs one",
            "Use another IPAM plugin for links of this kind.",
        )
    return found


def _switch_off(path: str, ifname: str, mac: str) -> None:
    with open_netns(path) as ns, Netlink(ns) as inside:
        found = link.find(inside, ifname)
        if found and found.mac == mac:
            inside.batch([link.set_flags(ifname, found.index, off=link.IFF_UP)])
