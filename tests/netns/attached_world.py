"""A host with one network of bridge, host-local and portmap, and containers that `pycni add` has attached."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.support import scene
from tests.support.command import Command

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from cni.testing import Host, Sandbox

RANGES = [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd09::/64"}]]
BACKENDS = ("iptables", "nftables")


class World:
    """The command `pycni`, the network "web" on bridge web0, and its containers; keys go to bridge."""

    def __init__(
        self, host: Host, folder: Path, backend: str = "nftables", *, with_faults: bool = False, **keys: Any
    ) -> None:
        self.host = host
        self._command = Command(folder, host.bindir, with_faults=with_faults)
        self.command = str(self._command)
        self.bridge = {
            "type": scene.INTERFACE,
            "bridge": "web0",
            "isDefaultGateway": True,
            "ipMasq": True,
            "ipMasqBackend": backend,
            "hairpinMode": True,
            "ipam": {"type": scene.IPAM, "ranges": RANGES},
        } | keys
        portmap = scene.ports(backend=backend)
        self.configure("web", self.bridge, portmap)
        self.sandboxes: dict[str, Sandbox] = {}

    def configure(self, name: str, *plugins: dict[str, Any], version: str = "1.1.0") -> None:
        """Write a network's file."""
        document = {"cniVersion": version, "name": name, "plugins": plugins}
        file = f"/etc/cni/net.d/{name}.conflist"
        self.host.run(["install", "-D", "-m", "644", "/dev/stdin", file], json.dumps(document))

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run the command."""
        path = "/usr/sbin:/usr/bin:/sbin:/bin"
        done = self._command.run(self.host.place, *arguments, env={"PATH": path, **env}, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def ok(self, *arguments: str, **env: str) -> str:
        """Run it successfully and give what it printed."""
        done = self.run(*arguments, **env)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def attach(
        self,
        name: str,
        *ports: tuple[int, str],
        network: str = "web",
        ifname: str = "eth0",
        bindir: Path | None = None,
    ) -> Any:
        """Make a sandbox, attach it and give the result; each port leads to the container's port 80."""
        if name not in self.sandboxes:
            self.sandboxes[name] = self.host.sandbox(name)
        listed = [{"hostPort": port, "containerPort": 80, "protocol": protocol} for port, protocol in ports]
        env = {"CAP_ARGS": json.dumps({"portMappings": listed})} if ports else {}
        env |= {"CNI_PATH": str(bindir)} if bindir else {}
        return json.loads(self.ok("add", network, self.sandboxes[name].path, "-i", ifname, **env))

    def check(self, name: str) -> tuple[int, str]:
        """Return the code of CHECK for a container, and its message and details."""
        done = self.run("check", "web", f"/run/netns/{name}", "--json")
        told = json.loads(done.stdout or '{"code": 0}')
        return told["code"], f"{told.get('msg', '')}; {told.get('details', '')}"

    def forget(self, name: str) -> None:
        """Remove the cached result of a container, as a lost disk does."""
        for line in self.host.run(
            ["grep", "-l", "-r", f'/run/netns/{name}"', "/var/lib/cni/results"]
        ).split():
            self.host.run(["rm", line])

    def elements(self) -> set[str]:
        """Return all elements of nftables sets, as "ip pycni ports tcp . 8080"."""
        found = set()
        for item in json.loads(self.host.run(["nft", "-j", "list", "ruleset"])).get("nftables", []):
            for kind in ("set", "map"):
                value = item.get(kind) or {}
                for each in value.get("elem", ()):
                    key = each[0] if kind == "map" else each
                    where = f"{value['family']} {value['table']} {value['name']}"
                    found.add(f"{where} {_shown(key)}")
        return found

    def chains(self) -> set[str]:
        """Return the chains of iptables, as "ip6tables chain CNI-..."."""
        return {
            f"{program} chain {line[1:].split()[0]}"
            for program in ("iptables", "ip6tables")
            for line in self.host.run([f"{program}-save", "-t", "nat"]).splitlines()
            if line.startswith(":CNI-")
        }

    def rules(self) -> set[str]:
        """Return all rules, as a set of lines; what iptables counts is left out."""
        return set(self.host.snapshot().rules)


def _shown(key: Any) -> str:
    if isinstance(key, dict) and "elem" in key:
        return _shown(key["elem"]["val"])
    if isinstance(key, dict):
        return " . ".join(map(str, key["concat"]))
    return str(key)
