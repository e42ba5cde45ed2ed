"""The containers of a run by number: where each is attached, under which name, to which network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from bench.sides import INTERFACE, IPAM, PORTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.sides import Side

# A bridge has 1,023 ports at most; what is measured joins the first one.
PER_NETWORK = 1000
FIRST_PORT, CONTAINER_PORT = 20000, 80
_VERSION = "1.0.0"
_FIRST_SUBNET = 22


class Filling(NamedTuple):
    """The layout of existing attachments: how many share a namespace, and how many share a network.

    If `rules_apart` is set, the rules of iptables are written for all of them at once, see `bench.crowd`.
    """

    per_namespace: int = 1
    per_network: int = PER_NETWORK
    rules_apart: bool = False


class Container(NamedTuple):
    """One attachment: its number, the namespace and the interface that it gets, the network's number.

    If `is_bare` is set, the attachment gets no firewall rules.
    """

    number: int
    netns: str
    ifname: str = "eth0"
    network: int = 0
    is_bare: bool = False

    @property
    def container_id(self) -> str:
        """Return the container ID that the runtime uses."""
        return f"b{self.number}"

    @property
    def network_name(self) -> str:
        """Return the name of the network."""
        return f"bench{self.network or ''}"

    @property
    def port(self) -> int:
        """The host port that is published for it."""
        return FIRST_PORT + self.number

    @property
    def env(self) -> dict[str, str]:
        """Return the environment of a plugin for this container."""
        return {
            "CNI_CONTAINERID": self.container_id,
            "CNI_NETNS": f"/run/netns/{self.netns}",
            "CNI_IFNAME": self.ifname,
        }

    def confs(self, side: Side) -> Iterator[dict[str, Any]]:
        """Yield the configurations of its chain: bridge with host-local and masquerading, then portmap."""
        common = {"cniVersion": _VERSION, "name": self.network_name}
        backend = side.backend
        bridge = {
            "type": INTERFACE,
            "bridge": f"bench{self.network}",
            "isGateway": True,
            "ipMasq": not self.is_bare,
            "ipam": {
                "type": IPAM,
                "ranges": [[{"subnet": f"10.{_FIRST_SUBNET + self.network}.0.0/16"}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
        yield common | bridge | ({"ipMasqBackend": backend} if backend else {})
        if self.is_bare:
            return
        mapping = {"hostPort": self.port, "containerPort": CONTAINER_PORT, "protocol": "tcp"}
        portmap = {"type": PORTS, "runtimeConfig": {"portMappings": [mapping]}}
        yield common | portmap | ({"backend": backend} if backend else {})


def measured(number: int) -> Container:
    """Return a container that is measured: in a namespace of its own."""
    return Container(number, f"b{number}")


def fill(number: int, filling: Filling, *, is_bare: bool = False) -> Container:
    """Return a container that is attached before the measurement."""
    place, index = divmod(number, filling.per_namespace)
    return Container(number, f"f{place}", f"eth{index}", number // filling.per_network, is_bare)
