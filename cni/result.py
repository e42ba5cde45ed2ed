"""The result of an ADD in the shape of CNI 1.x (CNI spec 1.1.0, section 5), without a version.

`cni.convert` renders it as the JSON of each spec version and parses it again.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import NamedTuple

IpAddress = IPv4Address | IPv6Address
IpInterface = IPv4Interface | IPv6Interface
IpNetwork = IPv4Network | IPv6Network


class Interface(NamedTuple):
    """A link of the attachment.

    Attributes:
        name: Name of the link in its namespace.
        mac: MAC address, "" if it has none.
        sandbox: The value of CNI_NETNS, "" for a link on the host.
        mtu: MTU, 0 if unknown.
        socket_path: Path of the socket of a link that is no network device (vhost-user).
        pci_id: Address on the PCI bus of a link that is a hardware device.
    """

    name: str
    mac: str = ""
    sandbox: str = ""
    mtu: int = 0
    socket_path: str = ""
    pci_id: str = ""


class Ip(NamedTuple):
    """An address of the container.

    Attributes:
        address: Address with its prefix length.
        gateway: The default gateway of the subnet, None if it has none.
        interface: Index into `Result.interfaces`, None if unknown.
    """

    address: IpInterface
    gateway: IpAddress | None = None
    interface: int | None = None


class Route(NamedTuple):
    """A route of the container. The spec has no keys for `src` and `is_onlink`: no result has them.

    Attributes:
        dst: The destination. A prefix length of 0 is the default route.
        gw: The gateway. None if the destination is on the link, or the plugin chooses one.
        mtu: Largest packet on the route, 0 if not set.
        advmss: Segment size that TCP announces, 0 if not set.
        priority: Metric of the route, 0 if not set.
        table: Routing table, None for the main one. 0 is a value.
        scope: Scope (rtnetlink(7)), None if the kernel decides. 0 is a value.
        src: Source address that the kernel prefers.
        is_onlink: The gateway is on the link, although the kernel has no connected route to it.
    """

    dst: IpNetwork
    gw: IpAddress | None = None
    mtu: int = 0
    advmss: int = 0
    priority: int = 0
    table: int | None = None
    scope: int | None = None
    src: IpAddress | None = None
    is_onlink: bool = False


class Dns(NamedTuple):
    """Settings of name resolution. The runtime applies them, no plugin does.

    Attributes:
        nameservers: Addresses of name servers, in order of preference.
        domain: Local domain for short host names.
        search: Domains to search for short host names, in order of preference.
        options: Options for the resolver.
    """

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.nameservers or self.domain or self.search or self.options)


class Result(NamedTuple):
    """The result of ADD (CNI spec 1.1.0, section 5), its members in the order in which they are printed.

    Attributes:
        interfaces: The links that plugins of the chain have made, in the container and on the host.
        ips: The addresses of the container.
        routes: The routes of the container.
        dns: Settings of name resolution.
    """

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[Ip, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Dns = Dns()

    def with_dns(self, dns: Dns) -> Result:
        """Return the same result with other settings of name resolution."""
        return self._replace(dns=dns)

    def container_interface(self, ifname: str) -> Interface | None:
        """Return the interface `ifname` that has a sandbox, None if there is none."""
        return next((each for each in self.interfaces if each.name == ifname and each.sandbox), None)
