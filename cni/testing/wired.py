"""Containers on a bridge without an interface plugin, as input of chained plugins."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Any

from cni.testing.namespaces import write_sysctls

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cni.testing.answer import Answer
    from cni.testing.host import Host, Sandbox

# Duplicate address detection would delay each test by a second.
_NO_DAD = {"net/ipv6/conf/default/accept_dad": "0"}
_FORWARDING = {"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1"}


@dataclass(frozen=True)
class Container:
    """A sandbox with eth0 on the bridge; `prev_result` is the result of an interface plugin."""

    container_id: str
    sandbox: Sandbox
    address: str
    address6: str
    host_end: str
    prev_result: dict[str, Any]

    def of_family(self, version: int) -> str:
        """Return its IPv4 or its IPv6 address."""
        return self.address if version == 4 else self.address6


@dataclass
class Wired:
    """A network of both families. The host is its gateway and forwards; containers are c1, c2, ..."""

    host: Host
    name: str = "net1"
    bridge: str = "cni0"
    subnet: IPv4Network = field(default_factory=lambda: IPv4Network("10.22.0.0/16"))
    subnet6: IPv6Network = field(default_factory=lambda: IPv6Network("fd00:22::/64"))
    version: str = "1.0.0"

    def __post_init__(self) -> None:
        self.host.place.visit(write_sysctls, _FORWARDING | _NO_DAD)
        lines = [
            f"link add {self.bridge} type bridge",
            f"addr add {self.gateway}/{self.subnet.prefixlen} dev {self.bridge}",
            f"addr add {self.gateway6}/{self.subnet6.prefixlen} dev {self.bridge} nodad",
            f"link set {self.bridge} up",
        ]
        self.host.batch(lines)

    @property
    def gateway(self) -> str:
        """The bridge's IPv4 address."""
        return str(self.subnet[1])

    @property
    def gateway6(self) -> str:
        """The bridge's IPv6 address."""
        return str(self.subnet6[1])

    def container(self, number: int = 1, *, hairpin: bool = True) -> Container:
        """Create container number 1, 2, ... with the addresses .2, .3, ... of the subnets."""
        name = f"c{number}"
        sandbox = self.host.sandbox(name)
        sandbox.place.visit(write_sysctls, _NO_DAD)
        address, address6 = str(self.subnet[number + 1]), str(self.subnet6[number + 1])
        host_end = f"veth{self.bridge[:6]}{number}"
        lines = [
            f"link add {host_end} type veth peer name eth0 netns {name}",
            f"link set {host_end} up master {self.bridge}",
            f"link set {host_end} type bridge_slave hairpin {'on' if hairpin else 'off'}",
        ]
        self.host.batch(lines)
        lines = [
            "link set lo up",
            "link set eth0 up",
            f"addr add {address}/{self.subnet.prefixlen} dev eth0",
            f"addr add {address6}/{self.subnet6.prefixlen} dev eth0 nodad",
            f"route add default via {self.gateway}",
            f"route add default via {self.gateway6}",
        ]
        sandbox.batch(lines)
        prev_result = self._prev_result(sandbox, host_end, address, address6)
        return Container(name, sandbox, address, address6, host_end, prev_result)

    def _prev_result(self, sandbox: Sandbox, host_end: str, address: str, address6: str) -> dict[str, Any]:
        return {
            "cniVersion": self.version,
            "interfaces": [
                {"name": self.bridge},
                {"name": host_end},
                {"name": "eth0", "sandbox": sandbox.path},
            ],
            "ips": [
                {
                    "address": f"{address}/{self.subnet.prefixlen}",
                    "gateway": self.gateway,
                    "interface": 2,
                },
                {
                    "address": f"{address6}/{self.subnet6.prefixlen}",
                    "gateway": self.gateway6,
                    "interface": 2,
                },
            ],
            "dns": {},
        }

    def call(  # noqa: PLR0913 - the parameters of a CNI call
        self,
        plugin: str,
        verb: str,
        container: Container,
        conf: Mapping[str, Any],
        *,
        bindir: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Answer:
        """Call a chained plugin for a container; `conf` has the plugin's keys; None removes a key."""
        document = {
            "cniVersion": self.version,
            "name": self.name,
            "type": plugin,
            "prevResult": container.prev_result,
            **conf,
        }
        return self.host.plugin(
            plugin,
            verb,
            {key: value for key, value in document.items() if value is not None},
            netns=container.sandbox,
            container_id=container.container_id,
            bindir=bindir,
            env=env,
        )
