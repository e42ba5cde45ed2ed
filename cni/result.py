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
    """A link of the attachment. `sandbox` is the value of CNI_NETNS, "" for a link on the host."""

    name: str
    mac: str = ""
    sandbox: str = ""
    mtu: int = 0
    socket_path: str = ""
    pci_id: str = ""


class Ip(NamedTuple):
    """An address with its prefix. `interface` is an index into `Result.interfaces`, None if unknown."""

    address: IpInterface
    gateway: IpAddress | None = None
    interface: int | None = None


class Route(NamedTuple):
    """A route of the container. `table` and `scope` are None if absent, because 0 is a value.

    `src` is the source address that the kernel prefers. `is_onlink` lets a route have a gateway to which the
    kernel has no connected route. The spec has no keys for these: no result has them.
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
    """Settings of name resolution. The runtime applies them, no plugin does."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.nameservers or self.domain or self.search or self.options)


class Result(NamedTuple):
    """The result of ADD (CNI spec 1.1.0, section 5), its members in the order in which they are printed."""

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
