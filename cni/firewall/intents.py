"""What a plugin wants of the packet filter, in no backend's words."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cni.operations.garbage import Stale
    from cni.request import Attachment
    from cni.result import IpAddress, IpInterface, IpNetwork
    from cni.undo import Undo


class Owner(NamedTuple):
    """Whose rules they are; every rule, chain and element can be traced to one."""

    network: str
    container_id: str
    ifname: str


class PortMapping(NamedTuple):
    """One published port; `host_ip` None means every local address of both families."""

    protocol: str
    host_port: int
    container_port: int
    host_ip: IpAddress | None = None


class Gateway(NamedTuple):
    """The gateway of a container's subnet."""

    ip: IpAddress
    network: IpNetwork

    @property
    def version(self) -> int:
        """The IP version, as addresses have it."""
        return self.ip.version


class PortForward(NamedTuple):
    """Publish ports of a container. `targets` holds its address, with prefix, of each family it has.

    Mappings whose `host_ip` is of a family without a target are left out by the backend. `mark_bit`,
    `external_set_mark_chain` speak to the iptables backend only; `conditions` are extra match tokens for
    IPv4 and IPv6 in the backend's own syntax. What comes from a subnet of the container to one of its
    `gateways` is for the host, unless a mapping names the gateway.
    """

    owner: Owner
    mappings: tuple[PortMapping, ...]
    targets: tuple[IpInterface, ...]
    snat: bool = True
    masq_all: bool = False
    mark_bit: int = 13
    external_set_mark_chain: str = ""
    conditions_v4: tuple[str, ...] = ()
    conditions_v6: tuple[str, ...] = ()
    gateways: tuple[Gateway, ...] = ()


class Masquerade(NamedTuple):
    """Hide a container's addresses behind the host's for whatever leaves their subnets.

    `gateways` are as in `PortForward`; other containers' ports are kept from these subnets.
    """

    owner: Owner
    addresses: tuple[IpInterface, ...]
    gateways: tuple[Gateway, ...] = ()


class Adding(Protocol):
    """The part of `Backend` that an ADD needs."""

    name: str

    def add_forward(self, intent: PortForward, undo: Undo) -> None:
        """Publish ports, all or nothing."""

    def add_masquerade(self, intent: Masquerade, undo: Undo) -> None:
        """Masquerade, all or nothing."""


class Backend(Adding, Protocol):
    """One way to render intents. Every method may be called twice; raises CniError `FIREWALL`.

    Methods `differences_*` tell in words what is missing or wrong, [] when all is in place. Methods
    `remove_*` succeed when nothing is there. `collect` removes what belongs to attachments of the network
    that are not in `valid` and gives the owners (as text) it removed.
    """

    def unusable_because(self) -> str:
        """Tell why this backend cannot work here, "" when it can."""

    def differences_forward(self, intent: PortForward) -> list[str]:
        """Compare with what is in place."""

    def remove_forward(self, owner: Owner) -> None:
        """Take away whatever was published for the owner, by this suite or by the Go plugins."""

    def differences_masquerade(self, intent: Masquerade) -> list[str]:
        """Compare with what is in place."""

    def remove_masquerade(self, owner: Owner) -> None:
        """Take away the owner's masquerading, made by this suite or by the Go plugins."""

    def mend(self, targets: Sequence[IpInterface]) -> None:
        """Make again what is missing of what all containers of these addresses' families share."""

    def stale(self, network: str, valid: Collection[Attachment]) -> list[Stale]:
        """Tell what `collect` would remove."""

    def collect(self, network: str, valid: Collection[Attachment]) -> list[str]:
        """Remove what was made for attachments of the network that are no longer valid."""
