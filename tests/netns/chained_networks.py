"""Networks on a host, and a chained plugin called for their containers."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Any

from cni.testing.wired import Container, Wired

if TYPE_CHECKING:
    from cni.testing import Answer, Host

BACKENDS = ("iptables", "nftables")
ADD_RULES = ("iptables-save -t filter", "ip6tables-save -t filter")


class ChainedNetwork:
    """Network number 1, 2, ... with the bridge cni1, cni2, ...; `keys` are those of the plugin."""

    def __init__(self, plugin: str, host: Host, number: int = 1, version: str = "1.0.0", **keys: Any) -> None:
        self.plugin = plugin
        self.host = host
        self.keys = keys
        self.net = Wired(
            host,
            f"net{number}",
            f"cni{number}",
            IPv4Network(f"10.{number}.0.0/24"),
            IPv6Network(f"fd00:{number}::/64"),
            version,
        )

    def call(self, verb: str, container: Container, **options: Any) -> Answer:
        keys = self.keys | options.pop("conf", {})
        return self.net.call(self.plugin, verb, container, keys, **options)

    def container(self, number: int = 1) -> Container:
        """Create a container whose name is unique on the host."""
        return self.net.container(int(self.net.bridge[3:]) * 20 + number)

    def attach(self, number: int = 1) -> Container:
        made = self.container(number)
        self.call("ADD", made).must()
        return made

    def gc(self, *valid: Container, verb: str = "GC") -> Answer:
        keys = [{"containerID": each.container_id, "ifname": "eth0"} for each in valid]
        conf = {"cniVersion": "1.1.0", "name": self.net.name, "type": self.plugin, **self.keys}
        listed = {**conf, "cni.dev/valid-attachments": keys}
        return self.host.plugin(self.plugin, verb, listed, container_id="", ifname="")


def ipv4_only(container: Container) -> Container:
    """Return the same container with its IPv4 address only in prevResult."""
    previous = container.prev_result
    return replace(container, prev_result={**previous, "ips": previous["ips"][:1]})


def rules(host: Host, *contents: str) -> list[str]:
    """Return the rules of table filter of both IP versions that contain one of the texts, or all."""
    found = []
    for command in ADD_RULES:
        lines = host.run(["sh", "-c", command]).splitlines()
        version = "6 " if command.startswith("ip6") else "4 "
        found += [
            version + line
            for line in lines
            if line.startswith("-A") and (not contents or any(each in line for each in contents))
        ]
    return found


def drop_forwarded(host: Host, by: str) -> None:
    """Drop what is forwarded: by the policy of iptables, or of a table of nftables."""
    if by == "iptables":
        host.run(["sh", "-c", "iptables -P FORWARD DROP && ip6tables -P FORWARD DROP"])
        return
    host.run(
        ["nft", "-f", "-"],
        "add table inet filter\n"
        "add chain inet filter forward { type filter hook forward priority 0; policy drop; }\n"
        "add rule inet filter forward icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept\n",
    )
