"""The network lists of tests/data/networks on a host, and the runtimes that use them."""

from __future__ import annotations

import json
import time
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

from cni import versions
from plugin_table import ROOT
from tests.support.command import Command

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from cni.testing import Host, Sandbox

FOLDER = ROOT / "tests/data/networks"
TABLE: list[dict[str, Any]] = json.loads((ROOT / "tests/data/networks.json").read_text())
# What runtimes pass beside the list. libcni passes a capability argument only to plugins that declare it.
RUNTIMES: dict[str, dict[str, Any]] = {
    row["what"]: row for row in json.loads((ROOT / "tests/data/runtimes.json").read_text())
}
PORT = 8080
_WITHIN_S = 20


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

    def __init__(self, host: Host, row: dict[str, Any], folder: Path, stand_ins: Path) -> None:
        self.host = host
        self.row = row
        self.document: dict[str, Any] = json.loads((FOLDER / row["what"]).read_text())
        self.name: str = self.document["name"]
        self._runtime = RUNTIMES[row["runtime"]]
        self.ifname: str = row.get("ifname", self._runtime["ifname"])
        self._command = Command(folder, host.bindir)
        self._path = f"{host.bindir}:{stand_ins}"
        self._process: subprocess.Popen[str] | None = None
        host.run(["mkdir", "-p", "/etc/cni/net.d"])
        host.run(["cp", str(FOLDER / row["what"]), "/etc/cni/net.d"])
        # New links get no link-local addresses, which the kernel adds at a time of its own.
        host.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/default/addr_gen_mode"])
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

    def pycni(self, *arguments: str, asks: bool = False) -> str:
        """Run a verb; `asks` passes the runtime's arguments. Raise CommandError if it fails."""
        env = {"CNI_PATH": self._path, "CNI_IFNAME": self.ifname, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        if asks:
            capabilities = self._runtime["capabilities"] | self.row.get("asks", {})
            env |= {"CAP_ARGS": json.dumps(capabilities), "CNI_ARGS": self._runtime["args"]}
        return self._command.run(self.host.place, *arguments, env=env).stdout

    def add(self, sandbox: Sandbox, *, asks: bool = False) -> list[str]:
        """Attach a sandbox, and return its addresses without prefix."""
        result = json.loads(self.pycni("add", self.name, sandbox.path, asks=asks))
        ips = result.get("ips", [])
        old = [result[key]["ip"] for key in ("ip4", "ip6") if key in result]
        return [str(ip_interface(each).ip) for each in [*(ip["address"] for ip in ips), *old]]

    def check(self, *sandboxes: Sandbox) -> None:
        """Compare attachments by CHECK; if the list is older than CHECK, by a repair that changes nothing."""
        version = self.document.get("cniVersion", "0.1.0")
        if versions.at_least(version, "0.4.0"):
            for each in sandboxes:
                self.pycni("check", self.name, each.path)
        else:
            shown = json.loads(self.pycni("repair", "--dry-run", "--json", self.name))["attachments"]
            assert [each["state"] for each in shown] == ["well"] * len(sandboxes), shown

    def delete(self, sandbox: Sandbox, *, asks: bool = False) -> None:
        """Detach a sandbox."""
        self.pycni("del", self.name, sandbox.path, asks=asks)

    def stale(self) -> list[dict[str, Any]]:
        """Return what GC of all attachments would remove."""
        shown: list[dict[str, Any]] = json.loads(self.pycni("gc", "--dry-run", "--json", self.name))["stale"]
        return shown
