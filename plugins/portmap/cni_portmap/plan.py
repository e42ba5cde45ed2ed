"""The ports to publish, and their destinations. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.addresses import join_networks
from cni.firewall.intents import Gateway, Owner, PortForward, PortMapping

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.request import Request
    from cni.result import Ip, IpInterface, IpNetwork, Result
    from cni_portmap.conf import PortmapConf

# The purpose of a backend in errors.
PURPOSE = "portmap"


def plan_owner(conf: PortmapConf, request: Request) -> Owner:
    """Return the owner of the ports."""
    return Owner(conf.name, request.container_id, request.ifname)


def plan_mappings(conf: PortmapConf) -> tuple[PortMapping, ...]:
    """Return the ports of the runtime."""
    return tuple(
        PortMapping(
            each.protocol,
            each.host_port,
            each.container_port,
            each.host_ip,
            _join(each.allow_from if each.allow_from is not None else conf.allow_from),
        )
        for each in conf.runtime_config.port_mappings
    )


def _join(clients: tuple[IpNetwork, ...] | None) -> tuple[IpNetwork, ...] | None:
    return None if clients is None else join_networks(clients)


def plan_forward(conf: PortmapConf, request: Request, result: Result) -> PortForward | None:
    """Return the intent for the addresses in `result`, None without ports or without addresses."""
    mappings = plan_mappings(conf)
    targets = find_targets(result, request.ifname)
    if not mappings or not targets:
        return None
    return PortForward(
        plan_owner(conf, request),
        mappings,
        targets,
        snat=conf.snat,
        masq_all=conf.masq_all,
        mark_bit=conf.mark_bit,
        external_set_mark_chain=conf.external_set_mark_chain or "",
        conditions_v4=conf.conditions_v4,
        conditions_v6=conf.conditions_v6,
        gateways=find_gateways(result, request.ifname),
    )


def find_targets(result: Result, ifname: str) -> tuple[IpInterface, ...]:
    """Return the container's first address of each family, IPv4 first.

    An address counts unless the result names another link for it, of the host or of the container.
    """
    found: dict[int, IpInterface] = {}
    for ip in result.ips:
        if _may_be_on(result, ip, ifname):
            found.setdefault(ip.address.version, ip.address)
    return tuple(found[version] for version in sorted(found))


def find_gateways(result: Result, ifname: str) -> tuple[Gateway, ...]:
    """Return the gateways of the container's subnets that may be on the host.

    An attachment without a link of the host, as one of macvlan, has its gateway elsewhere.
    """
    if result.interfaces and not list_host_ends(result):
        return ()
    found = [
        Gateway(ip.gateway, ip.address.network)
        for ip in result.ips
        if ip.gateway is not None and ip.gateway in ip.address.network and _may_be_on(result, ip, ifname)
    ]
    return tuple(dict.fromkeys(found))


def _may_be_on(result: Result, ip: Ip, ifname: str) -> bool:
    if ip.interface is None or not 0 <= ip.interface < len(result.interfaces):
        return True
    interface = result.interfaces[ip.interface]
    return bool(interface.sandbox) and interface.name == ifname


def list_host_ends(result: Result) -> list[str]:
    """Return the names of links on the host, which include the container's host end."""
    return [each.name for each in result.interfaces if not each.sandbox]


def plan_notes(mappings: Sequence[PortMapping], targets: Sequence[IpInterface]) -> list[str]:
    """Return a log line for each port that cannot be reached as its mapping says."""
    if mappings and not targets:
        return ["portmap: the container has no address, no port is published"]
    versions = {each.version for each in targets}
    notes = []
    for mapping in mappings:
        port = f"portmap: host port {mapping.host_port}/{mapping.protocol} on {mapping.host_ip}"
        if mapping.host_ip is not None and mapping.host_ip.version not in versions:
            notes.append(
                f"{port} is not published: the container has no IPv{mapping.host_ip.version} address"
            )
        elif mapping.host_ip is not None and mapping.host_ip.version == 6 and mapping.host_ip.is_loopback:
            notes.append(f"{port} cannot be reached: the kernel does not forward what is sent to ::1")
    return notes
