"""What an attachment looks like, in the shape of CNI 1.x and without a version inside.

`cni.convert` turns it into the JSON of each spec version and back.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import NamedTuple

IpAddress = IPv4Address | IPv6Address
IpInterface = IPv4Interface | IPv6Interface
IpNetwork = IPv4Network | IPv6Network


class Interface(NamedTuple):
    """A link of the attachment; `sandbox` is the CNI_NETNS text as given, "" for a link on the host."""

    name: str
    mac: str = ""
    sandbox: str = ""
    mtu: int = 0
    socket_path: str = ""
    pci_id: str = ""


class Ip(NamedTuple):
    """An address with its prefix; `interface` is an index into Result.interfaces, None when unknown."""

    address: IpInterface
    gateway: IpAddress | None = None
    interface: int | None = None


class Route(NamedTuple):
    """A route of the container; `table` and `scope` are None when not given (0 is a value).

    `src` is the source address that the kernel prefers. The spec has no key for it: no result shows it.
    """

    dst: IpNetwork
    gw: IpAddress | None = None
    mtu: int = 0
    advmss: int = 0
    priority: int = 0
    table: int | None = None
    scope: int | None = None
    src: IpAddress | None = None


class Dns(NamedTuple):
    """Name service settings, passed on to the runtime; no plugin here acts on them."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.nameservers or self.domain or self.search or self.options)


class Result(NamedTuple):
    """The answer to ADD (CNI spec 1.1.0, section 5), all members in the order in which they are shown."""

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[Ip, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Dns = Dns()

    def with_dns(self, dns: Dns) -> Result:
        """Give the same result with other name service settings."""
        return self._replace(dns=dns)

    def container_interface(self, ifname: str) -> Interface | None:
        """Give the interface called `ifname` that lies in a sandbox, None if there is none."""
        return next((each for each in self.interfaces if each.name == ifname and each.sandbox), None)
