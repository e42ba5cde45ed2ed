"""Compare a cached attachment with the kernel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cni.convert import parse_result
from cni.errors import CniError
from cni.kernel import addr, link, veth
from cni.kernel.netns import open_netns
from cni.kernel.rtnetlink import Netlink
from cni.operations import holders
from cni.result import Result

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cni.kernel.link import Link
    from cni.kernel.veth import Ends
    from cni.runtime.cache import Entry

_IFNAME_BYTES = 15
# Of an attachment that a command of ours has announced.
UNFINISHED = "its ADD still runs, or was killed: then call the command again, or pycni network disconnect"


@dataclass(frozen=True, slots=True)
class HostLink:
    """A link on the host; `addresses` have a prefix length. `is_there` is False if it is only expected."""

    name: str
    is_there: bool = True
    is_up: bool = False
    master: str = ""
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PublishedPort:
    """A port of the host that is forwarded to the container; `host_ip` "" means all addresses.

    `allow_from` are the clients of the port's own list, () without one.
    """

    protocol: str
    host_ip: str
    host_port: int
    container_port: int
    allow_from: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Attached:
    """One attachment as it is now. `netns_state` is "alive", "gone" or "unknown".

    `addresses` (with prefix length, unless they are from a lease) and `mac` are the kernel's, if available.
    `problems` are sentences about differences from the result of ADD. `remains` are objects on the host of an
    attachment without a result, by kind and name, and `remedy` is the command that removes them. The names
    are those that the runtime passed in CNI_ARGS: of a pod with its namespace, or of a container.
    `published_names` are those that the DNS server answers, `upstreams` the servers that it asks for other
    names in place of the network's.
    """

    container_id: str
    ifname: str
    netns: str = ""
    netns_state: str = "unknown"
    addresses: tuple[str, ...] = ()
    mac: str = ""
    mtu: int = 0
    host_link: HostLink | None = None
    ports: tuple[PublishedPort, ...] = ()
    problems: tuple[str, ...] = ()
    remains: tuple[str, ...] = ()
    remedy: str = ""
    pod_namespace: str = ""
    pod_name: str = ""
    container_name: str = ""
    published_names: tuple[str, ...] = ()
    upstreams: tuple[str, ...] = ()


def observe(host: Netlink, entry: Entry) -> Attached:
    """Compare a cached attachment with the kernel. If the kernel refuses, that is a problem."""
    result, problems = _read_result(entry)
    args = dict(entry.args)
    namespace, name = args.get("K8S_POD_NAMESPACE", ""), args.get("K8S_POD_NAME", "")
    expected = Attached(
        entry.container_id,
        entry.ifname,
        entry.sandbox,
        addresses=_container_addresses(result),
        mac=next((each.mac for each in result.interfaces if each.name == entry.ifname and each.sandbox), ""),
        ports=tuple(list_ports(entry.capability_args)),
        problems=problems,
        pod_namespace=namespace,
        pod_name=name if namespace else "",
        # podman passes a container's name in place of a pod's name, without a namespace.
        container_name="" if namespace else name,
    )
    try:
        if not entry.sandbox:
            return expected
        if holders.is_proven_gone(entry.sandbox, entry.result):
            return _observe_gone(host, expected, result)
        return _observe_alive(host, expected, result)
    except CniError as error:
        # This caller may not open the path, or sees another file there.
        state = holders.ALIVE if holders.has_host_end(entry.result) else holders.UNKNOWN
        return _with_problems(replace(expected, netns_state=state), str(error))


def find_host_link(host: Netlink, name: str) -> HostLink:
    """Return a link of the host, with `is_there` False if it does not exist."""
    host_link = link.find(host, name)
    return _show_link(host, host_link) if host_link else HostLink(name, is_there=False)


def list_ports(capability_args: Mapping[str, Any]) -> list[PublishedPort]:
    """Return the published ports of an attachment; invalid entries are skipped."""
    listed = capability_args.get("portMappings")
    ports = []
    for each in listed if isinstance(listed, list) else []:
        # Some runtimes write HostPort, others hostPort.
        folded = {str(key).lower(): value for key, value in each.items()} if isinstance(each, dict) else {}
        host_port, container_port = folded.get("hostport"), folded.get("containerport")
        if isinstance(host_port, int) and isinstance(container_port, int) and host_port > 0:
            protocol, host_ip = folded.get("protocol") or "tcp", folded.get("hostip") or ""
            listed_clients = folded.get("allowfrom")
            clients = map(str, listed_clients if isinstance(listed_clients, list) else ())
            ports.append(
                PublishedPort(str(protocol).lower(), str(host_ip), host_port, container_port, tuple(clients))
            )
    return ports


def _read_result(entry: Entry) -> tuple[Result, tuple[str, ...]]:
    if not entry.result:
        return Result(), (UNFINISHED,)
    try:
        return parse_result(entry.result, "", "cached result"), ()
    except CniError as error:
        return Result(), (str(error),)


def _container_addresses(result: Result) -> tuple[str, ...]:
    """Return the addresses inside the container, including those with an invalid interface index."""
    sandboxes = {number: each.sandbox for number, each in enumerate(result.interfaces)}
    return tuple(
        str(ip.address) for ip in result.ips if ip.interface is None or sandboxes.get(ip.interface, "unknown")
    )


def _observe_gone(host: Netlink, expected: Attached, result: Result) -> Attached:
    host_end = next(iter(_host_ends(host, result)), None)
    problems = ["the network namespace is gone: run pycni del or pycni gc"]
    if host_end:
        problems.append(f"host end {host_end.name} still exists")
    shown = _show_link(host, host_end) if host_end else None
    return _with_problems(replace(expected, netns_state="gone", host_link=shown), *problems)


def _observe_alive(host: Netlink, expected: Attached, result: Result) -> Attached:
    with open_netns(expected.netns) as ns, Netlink(ns) as inside:
        container_end = link.find(inside, expected.ifname)
        addresses = addr.list_addrs(inside, container_end.index) if container_end else []
        ends = veth.find(host, _host_names(result), ns)
        peer = ends.end_of(container_end)
        if peer is None and container_end and not result.interfaces:
            # Results of the oldest versions name no links.
            peer = veth.find_by_index(host, container_end, ns)
    alive = replace(expected, netns_state="alive")
    if container_end is None:
        return _with_problems(alive, f"link {expected.ifname} is missing")
    present = [str(each.address) for each in addresses]
    shown = tuple(
        str(each.address) for each in addresses if each.is_global or str(each.address) in expected.addresses
    )
    return _with_problems(
        replace(
            alive,
            addresses=shown,
            mac=container_end.mac,
            mtu=container_end.mtu,
            host_link=_show_link(host, peer) if peer else None,
        ),
        *([] if container_end.is_up else [f"link {container_end.name} is down"]),
        *(f"address {each} is missing" for each in expected.addresses if each not in present),
        *_problems_of_host_end(container_end, peer, ends, result),
    )


def _problems_of_host_end(container_end: Link, peer: Link | None, ends: Ends, result: Result) -> list[str]:
    if peer is not None:
        return [] if peer.is_up else [f"host end {peer.name} is down"]
    present = {each.name for each in ends.links if each}
    return [
        f"host end {each} is not the other end of {container_end.name}"
        if each in present
        else f"host end {each} is missing"
        for each in _host_names(result)
        if each.startswith("veth")
    ]


def _host_ends(host: Netlink, result: Result) -> list[Link]:
    host_links = [link.find(host, name) for name in _host_names(result)]
    return [each for each in host_links if each and each.kind == "veth"]


def _host_names(result: Result) -> list[str]:
    """Return the names of the result's links on the host that are valid link names."""
    names = [each.name for each in result.interfaces if not each.sandbox]
    return [each for each in names if 0 < len(each.encode()) <= _IFNAME_BYTES]


def _show_link(host: Netlink, shown: Link) -> HostLink:
    master = link.find_by_index(host, shown.master) if shown.master else None
    addresses = [str(each.address) for each in addr.list_addrs(host, shown.index) if each.is_global]
    return HostLink(
        shown.name,
        is_up=shown.is_up,
        master=master.name if master else "",
        addresses=tuple(addresses),
    )


def _with_problems(attached: Attached, *problems: str) -> Attached:
    return replace(attached, problems=(*attached.problems, *problems))
