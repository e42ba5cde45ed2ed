"""One network of an interface plugin: its configuration, and the containers that a test attaches to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cni.testing.answer import Answer
    from cni.testing.host import Host, Sandbox

SUBNET, SUBNET6 = "10.1.0.0/24", "fd01::/64"
GATEWAY, GATEWAY6 = "10.1.0.1", "fd01::1"


@dataclass(frozen=True)
class Attached:
    """A container, and the response of the plugin to its ADD."""

    name: str
    sandbox: Sandbox
    answer: Answer

    @property
    def address(self) -> str:
        """Its first address, without prefix."""
        return self.answer.addresses[0]

    @property
    def address6(self) -> str:
        """Its first IPv6 address, without prefix."""
        return next(each for each in self.answer.addresses if ":" in each)

    @property
    def host_end(self) -> str:
        """The name of its link on the host."""
        return str(self.answer.json["interfaces"][1]["name"])

    @property
    def mac(self) -> str:
        """The MAC address of its own end."""
        return str(self.answer.json["interfaces"][2]["mac"])


class Network:
    """A network of both families with host-local, called "net1"; `keys` override its configuration."""

    def __init__(self, host: Host, plugin: str = "bridge", **keys: Any) -> None:
        self.host = host
        self.plugin = plugin
        ranges = [[{"subnet": SUBNET}], [{"subnet": SUBNET6}]]
        usual = {"bridge": "br0", "ipam": {"type": "host-local", "ranges": ranges}}
        self.conf = {"cniVersion": "1.1.0", "name": "net1", "type": plugin, **usual, **keys}

    def call(self, verb: str, name: str, netns: str | Sandbox | None = None, **options: Any) -> Answer:
        """Call the plugin for the container `name`; `keys` among the options adds to the configuration."""
        conf = self.conf | options.pop("keys", {})
        where = f"/run/netns/{name}" if netns is None else netns
        return self.host.plugin(self.plugin, verb, conf, netns=where, container_id=name, **options)

    def add(self, name: str, **options: Any) -> Attached:
        """Make the sandbox `name` and attach it."""
        sandbox = self.host.sandbox(name)
        answer = self.call("ADD", name, **options)
        answer.must()
        return Attached(name, sandbox, answer)

    def delete(self, name: str, **options: Any) -> None:
        """Detach a container; fail the test when the plugin fails."""
        self.call("DEL", name, **options).must()

    def check(self, container: Attached, **options: Any) -> Answer:
        """Call CHECK with the result of the container's ADD."""
        keys = options.pop("keys", {}) | {"prevResult": container.answer.json}
        return self.call("CHECK", container.name, keys=keys, **options)

    def repair(self, container: Attached) -> Answer:
        """Call the plugin's repair, as `pycni repair` does, with the result of the container's ADD."""
        return self.call("PYCNI_REPAIR", container.name, keys={"prevResult": container.answer.json})

    def gc(self, *valid: str, dry_run: bool = False) -> Answer:
        """Call GC, or its dry run; the attachments of the containers `valid` at eth0 are the valid ones."""
        attachments = [{"containerID": each, "ifname": "eth0"} for each in valid]
        conf = self.conf | {"cni.dev/valid-attachments": attachments}
        verb = "PYCNI_GC_PLAN" if dry_run else "GC"
        return self.host.plugin(self.plugin, verb, conf, container_id="", ifname="")

    def status(self, **keys: Any) -> Answer:
        """Call STATUS; `keys` are added to the configuration."""
        return self.host.plugin(self.plugin, "STATUS", self.conf | keys, container_id="", ifname="")
