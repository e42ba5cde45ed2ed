"""The network lists of tests/data/networks on a host, and the runtimes that use them."""

from __future__ import annotations

import hashlib
import json
import time
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from cni.request import Attachment, Verb
from cni.runtime import conflists
from cni.runtime.chain import Runtime
from cni.runtime.derive import RuntimeArgs
from cni.runtime.gc_plan import GcPlan, plan
from cni.runtime.repair import WELL, repair
from cni.testing.namespaces import write_sysctls
from cni.testing.place import BARE_ENV
from plugin_table import ROOT
from tests.support.cold_scripts import without_start

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from cni.runtime.network import Network
    from cni.testing import Host, Sandbox

P = ParamSpec("P")
T = TypeVar("T")

FOLDER = ROOT / "tests/data/networks"
TABLE: list[dict[str, Any]] = json.loads((ROOT / "tests/data/networks.json").read_text())
# What runtimes pass beside the list. libcni passes a capability argument only to plugins that declare it.
RUNTIMES: dict[str, dict[str, Any]] = {
    row["what"]: row for row in json.loads((ROOT / "tests/data/runtimes.json").read_text())
}
PORT = 8080
_WITHIN_S = 20


class Node:
    """The runtime of a host: calls the plugins in the folders of `path` for networks in /etc/cni/net.d."""

    def __init__(self, host: Host, path: list[str]) -> None:
        self.host = host
        self._runtime = Runtime(path, BARE_ENV)

    def run(
        self, name: str, action: Callable[Concatenate[Runtime, Network, P], T], *args: P.args, **kw: P.kwargs
    ) -> T:
        """Call a function of the runtime with the network of that name, on the host."""

        def call() -> T:
            return action(self._runtime, conflists.find(conflists.DEFAULT_FOLDER, name), *args, **kw)

        return self.host.call(call)

    def check(self, name: str, *attachments: RuntimeArgs) -> None:
        """Compare attachments by CHECK; if the list is older than CHECK, by a repair that changes nothing."""
        self.run(name, _check, attachments)


def _check(runtime: Runtime, network: Network, attachments: tuple[RuntimeArgs, ...]) -> None:
    for each in attachments:
        if network.has(Verb.CHECK):
            runtime.check(network, each)
        else:
            entry = runtime.cache.read(network.name, Attachment(each.container_id, each.ifname))
            assert entry
            [outcome] = repair(runtime, [entry], conflists.DEFAULT_FOLDER, dry_run=True)
            assert outcome.state == WELL, outcome


def container_id(sandbox: Sandbox) -> str:
    """Return an ID as runtimes make them."""
    return hashlib.sha256(sandbox.name.encode()).hexdigest()


def read_args(text: str) -> tuple[tuple[str, str], ...]:
    """Return the pairs of CNI_ARGS."""
    return tuple((key, value) for key, _, value in (each.partition("=") for each in text.split(";")))


def make_lan(host: Host, link: str, kind: str, address: str, *, peer: str = "lan", vlan: int = 0) -> None:
    """Create the link or the bridge that a list names, with the peer outside behind it on its link `peer`.

    On a bridge with a VLAN the peer is in that VLAN.
    """
    port = "uplink" if kind == "bridge" else link
    lines = [f"link add {port} type veth peer name {peer} netns outside"]
    if kind == "bridge":
        filtering = " vlan_filtering 1" if vlan else ""
        lines += [
            f"link add {link} type bridge{filtering}",
            f"link set {link} up",
            f"link set {port} master {link}",
        ]
    host.run(["ip", "-batch", "-"], "\n".join([*lines, f"link set {port} up", ""]))
    if vlan:
        host.run(["bridge", "vlan", "add", "dev", port, "vid", str(vlan), "pvid", "untagged"])
    outside = host.outside.sandbox
    outside.run(["ip", "-batch", "-"], f"addr add {address} dev {peer}\nlink set {peer} up\n")


class RealList:
    """One list as the only network of a host. `stand_ins` is a folder of third parties' plugins."""

    def __init__(self, host: Host, row: dict[str, Any], stand_ins: Path) -> None:
        self.host = host
        self.row = row
        self.document: dict[str, Any] = json.loads((FOLDER / row["what"]).read_text())
        self.name: str = self.document["name"]
        self._runtime = RUNTIMES[row["runtime"]]
        self.ifname: str = row.get("ifname", self._runtime["ifname"])
        self.node = Node(host, [str(without_start(host.bindir)), str(stand_ins)])
        self._process: subprocess.Popen[str] | None = None
        file = f"/etc/cni/net.d/{row['what']}"
        host.run(["install", "-D", "-m", "644", str(FOLDER / row["what"]), file])
        # What the agent of a plugin leaves on its node, in the host's own /run.
        for path, content in row.get("files", {}).items():
            assert path.startswith("/run/")
            host.run(["install", "-D", "-m", "644", "/dev/stdin", path], content)
        # New links get no link-local addresses, which the kernel adds at a time of its own.
        host.call(write_sysctls, {"net/ipv6/conf/default/addr_gen_mode": "1"})
        assert host.outside
        if "lan" in row:
            make_lan(host, **row["lan"])
        if "leases" in row:
            self._serve_addresses(row["leases"])

    def _serve_addresses(self, range_: str) -> None:
        """Start a DHCP server on the peer outside."""
        place = self.host.outside.sandbox.place
        options = ["--no-daemon", "--port=0", "--conf-file=/dev/null", "--interface=lan", "--no-ping"]
        files = ["--leasefile-ro", "--pid-file=", "--user=root", "--dhcp-authoritative"]
        self._process = place.popen(["dnsmasq", *options, *files, f"--dhcp-range={range_},255.255.255.0,1h"])
        deadline = time.monotonic() + _WITHIN_S
        while ":67 " not in place.run(["ss", "-lun"]).stdout:
            assert time.monotonic() < deadline, "the DHCP server does not start"
            time.sleep(0.02)

    def close(self) -> None:
        """End the server that the list needs."""
        if self._process:
            self._process.kill()
            self._process.communicate()

    def arguments(self, sandbox: Sandbox, *, asks: bool = False) -> RuntimeArgs:
        """Return the runtime's arguments for a container; `asks` adds CNI_ARGS and capability arguments."""
        known = (container_id(sandbox), sandbox.path, self.ifname)
        if not asks:
            return RuntimeArgs(*known)
        capabilities = self._runtime["capabilities"] | self.row.get("asks", {})
        return RuntimeArgs(*known, read_args(self._runtime["args"]), capabilities)

    def add(self, sandbox: Sandbox, *, asks: bool = False) -> list[str]:
        """Attach a sandbox, and return its addresses without prefix."""
        result = self.node.run(self.name, Runtime.add, self.arguments(sandbox, asks=asks))
        ips = [ip["address"] for ip in result.get("ips", [])]
        # Results of versions 0.1.0 and 0.2.0 have one address of each family.
        ips += [result[key]["ip"] for key in ("ip4", "ip6") if key in result]
        return [str(ip_interface(each).ip) for each in ips]

    def check(self, *sandboxes: Sandbox) -> None:
        """Compare attachments with their results."""
        self.node.check(self.name, *map(self.arguments, sandboxes))

    def delete(self, sandbox: Sandbox) -> None:
        """Detach a sandbox, as the runtime with the arguments of ADD."""
        self.node.run(self.name, Runtime.delete, self.arguments(sandbox, asks=True))

    def stale(self) -> GcPlan:
        """Return what GC of all attachments would remove."""
        return self.node.run(self.name, plan, set())

    def gc(self) -> None:
        """Remove all attachments."""
        self.node.run(self.name, Runtime.gc, set())
