"""Describe what a plugin needs of the packet filter, independent of the backend.

A new kind of intent is a value with the members of `Intent`, and a `Kind` with its renderings. Nothing else
in this folder has to know it. A `Kind` imports the rendering of a backend when the backend is used, because
a cold start pays for each module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from cni.errors import CniError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from cni.firewall.iptables.rule import Rendering as InIptables
    from cni.firewall.nftables.plan import Rendering as InNftables
    from cni.operations.garbage import Stale
    from cni.request import Attachment
    from cni.result import IpAddress, IpInterface, IpNetwork
    from cni.undo import Undo


class RulesRemainError(CniError):
    """Rules of an attachment are known to remain in the kernel, and no installed tool can delete them."""


class Owner(NamedTuple):
    """The attachment that rules belong to. Every rule, chain and element can be traced to one.

    Attributes:
        network: Name of the network.
        container_id: The value of CNI_CONTAINERID.
        ifname: The value of CNI_IFNAME.
    """

    network: str
    container_id: str
    ifname: str


class Kind(NamedTuple):
    """A kind of intent. Its renderings are loaded when their backend is used, None where it has none.

    `name` is a part of file names. `noun` ("published ports") and `verb` ("publish ports of") are parts of
    messages. `checked` returns the part of an intent that CHECK compares, None for all of it.
    """

    name: str
    noun: str
    verb: str
    iptables: Callable[[], InIptables] | None = None
    nftables: Callable[[], InNftables] | None = None
    checked: Callable[[Any], Any] | None = None


def _iptables_forward() -> InIptables:
    from cni.firewall.iptables.rules import FORWARD as RENDERING

    return RENDERING


def _nftables_forward() -> InNftables:
    from cni.firewall.nftables.plan import FORWARD as RENDERING

    return RENDERING


def _iptables_masquerade() -> InIptables:
    from cni.firewall.iptables.rules import MASQUERADE as RENDERING

    return RENDERING


def _nftables_masquerade() -> InNftables:
    from cni.firewall.nftables.plan import MASQUERADE as RENDERING

    return RENDERING


FORWARD = Kind("forward", "published ports", "publish ports of", _iptables_forward, _nftables_forward)
MASQUERADE = Kind(
    "masquerade",
    "masquerading",
    "masquerade",
    _iptables_masquerade,
    _nftables_masquerade,
    # The gateways are a matter of published ports.
    lambda intent: intent._replace(gateways=()),
)
# The kinds that GC collects unless it is given others.
KINDS = (FORWARD, MASQUERADE)


class PortMapping(NamedTuple):
    """One published port.

    Attributes:
        protocol: "tcp", "udp" or "sctp".
        host_port: Port of the host.
        container_port: Port of the container.
        host_ip: Address of the host. None is every local address of both families.
        clients: Networks of the clients that reach the port, which do not overlap; the host always does. None
            is every client.
    """

    protocol: str
    host_port: int
    container_port: int
    host_ip: IpAddress | None = None
    clients: tuple[IpNetwork, ...] | None = None

    def clients_of(self, version: int) -> tuple[IpNetwork, ...] | None:
        """Return the clients of an IP version that reach the port, None for all; () for none."""
        if self.clients is None:
            return None
        found = tuple(each for each in self.clients if each.version == version)
        return None if any(not each.prefixlen for each in found) else found


class Gateway(NamedTuple):
    """The gateway of a container's subnet.

    Attributes:
        ip: Address of the gateway.
        network: The subnet.
    """

    ip: IpAddress
    network: IpNetwork

    @property
    def version(self) -> int:
        """The IP version, as addresses have it."""
        return self.ip.version


class PortForward(NamedTuple):
    """Publish ports of a container. `targets` has its address, with prefix, of each family.

    The backend omits mappings whose `host_ip` is of a family without a target. `mark_bit` and
    `external_set_mark_chain` are for iptables only. `conditions_v4` and `conditions_v6` are extra matches in
    the backend's own syntax. Traffic from a subnet of the container to one of its `gateways` reaches the
    host, unless a mapping names the gateway.
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

    @property
    def kind(self) -> Kind:
        """The kind of intent."""
        return FORWARD

    @property
    def versions(self) -> list[int]:
        """The IP versions that the rules are for."""
        return sorted({each.version for each in self.targets})


class Masquerade(NamedTuple):
    """Replace a container's addresses by the host's in all traffic that leaves their subnets.

    `gateways` are those of `PortForward`: published ports of others do not apply to them in these subnets.
    What goes to the networks `excepted`, which do not overlap, keeps the container's address.
    """

    owner: Owner
    addresses: tuple[IpInterface, ...]
    gateways: tuple[Gateway, ...] = ()
    excepted: tuple[IpNetwork, ...] = ()

    @property
    def kind(self) -> Kind:
        """The kind of intent."""
        return MASQUERADE

    @property
    def versions(self) -> list[int]:
        """The IP versions that the rules are for."""
        return sorted({each.version for each in self.addresses})


class Intent(Protocol):
    """The members of every intent."""

    @property
    def owner(self) -> Owner:
        """The attachment that its rules belong to."""

    @property
    def kind(self) -> Kind:
        """The kind of intent."""

    @property
    def versions(self) -> Sequence[int]:
        """The IP versions that the rules are for."""


def doing(intent: Intent) -> str:
    """Return what an intent does, for messages ("could not ...")."""
    owner = intent.owner
    return f"{intent.kind.verb} container {owner.container_id} on network {owner.network}"


def checked_part(intent: Intent) -> Intent:
    """Return the part of an intent that CHECK compares."""
    part: Intent = intent.kind.checked(intent) if intent.kind.checked else intent
    return part


class Applying(Protocol):
    """The part of `Backend` that an ADD needs."""

    name: str

    def apply(self, intent: Intent, undo: Undo) -> None:
        """Make the intent's rules: all of them, or none."""


class Backend(Applying, Protocol):
    """One way to render intents. Every method may be called twice, and raises CniError `FIREWALL`."""

    def unusable_because(self) -> str:
        """Return why this backend cannot work here, "" if it can."""

    def differences(self, intent: Intent) -> list[str]:
        """Return what is missing or wrong of an intent's rules."""

    def may_have(self, intent: Intent) -> bool:
        """Return whether the owner may have rules of the intent's kind here. No program is started."""

    def remove(self, owner: Owner, kind: Kind, addresses: Sequence[IpAddress] = ()) -> None:
        """Remove the owner's rules of a kind, made by this suite or by the Go plugins. None need to exist.

        The rules of other links of the container on the network remain if `addresses` has the addresses of
        the owner's link. Without them, the backend iptables removes the rules of all these links.
        """

    def installed(self, owners: Sequence[Owner], kind: Kind, versions: Collection[int]) -> list[Owner]:
        """Return those who have rules of a kind, by names alone: in each of `versions`, or in any."""

    def rebuild(self, intent: Intent) -> None:
        """Make missing rules that the intent shares with other containers."""

    def stale(
        self, network: str, valid: Collection[Attachment], kinds: Sequence[Kind] = KINDS
    ) -> list[Stale]:
        """Return what `collect` removes."""

    def collect(
        self, network: str, valid: Collection[Attachment], kinds: Sequence[Kind] = KINDS
    ) -> list[str]:
        """Remove rules of these kinds of the network's attachments that are not in `valid`.

        Return the owners as text.
        """
