"""Uninstalling with containers attached: what no other suite can delete is named, detached or left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.host import GO
from plugin_table import ROOT
from tests.netns.bundled_host import BINDIR, PREFIX, empty_opt, install
from tests.support import scene

if TYPE_CHECKING:
    import subprocess

    from cni.testing import Host, Sandbox

__all__ = ["empty_opt"]

# What the network is of; `tests/unit/test_install_originals.py` replaces more plugins.
NAMES = (scene.INTERFACE, scene.IPAM, scene.PORTS)
PORTS = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
COMMAND = str(PREFIX / "bin/pycni")
ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "CAP_ARGS": json.dumps(PORTS)}


@pytest.fixture
def swapped(empty_opt: Host, bundle: Path) -> Host:
    """Return a host on which the suite has replaced Debian's Go plugins."""
    if not (GO / scene.INTERFACE).exists():
        pytest.skip("containernetworking-plugins is not installed")
    host = empty_opt
    host.run(["mkdir", "-p", str(BINDIR), "/etc/cni/net.d"])
    host.run(["cp", *(str(GO / name) for name in NAMES), str(BINDIR)])
    install(host, bundle)
    return host


def _network(host: Host, version: str, backend: str) -> None:
    bridge: dict[str, Any] = {
        "type": scene.INTERFACE,
        "bridge": "br0",
        "isGateway": True,
        "ipMasq": True,
        "ipam": {"type": scene.IPAM, "ranges": [[{"subnet": "10.40.0.0/24"}]]},
    }
    portmap: dict[str, Any] = scene.ports()
    if backend == "nftables":
        bridge["ipMasqBackend"] = portmap["backend"] = backend
    text = json.dumps({"cniVersion": version, "name": "net", "plugins": [bridge, portmap]})
    host.call(Path("/etc/cni/net.d/10.conflist").write_text, text)


def _attach(host: Host, sandbox: Sandbox) -> str:
    host.run([COMMAND, "add", "net", sandbox.path], env=ENV)
    [cached] = host.run(["ls", "/var/lib/cni/results"]).split()
    return cached.removeprefix("net-").removesuffix("-eth0")


def _uninstall(host: Host, *options: str) -> subprocess.CompletedProcess[str]:
    return host.place.run([COMMAND, "--uninstall", *options], check=False)


def _state(host: Host) -> tuple[object, str, str]:
    files = host.run(["sh", "-c", "find /opt /var/lib/cni -type f -exec sha256sum {} + | sort"])
    return host.snapshot(), files, host.run(["nft", "-s", "list", "ruleset"])


def _can_be_deleted_by_go(host: Host, sandbox: Sandbox) -> bool:
    """Call Go's plugins as a runtime does for an attachment."""
    [cached] = host.run(["sh", "-c", "ls /var/lib/cni/results/*"]).split()
    entry = json.loads(host.run(["cat", cached]))
    plugins = json.loads(host.run(["cat", "/etc/cni/net.d/10.conflist"]))
    for plugin in reversed(plugins["plugins"]):
        conf = {**plugin, "name": "net", "cniVersion": plugins["cniVersion"], "prevResult": entry["result"]}
        conf |= {"runtimeConfig": PORTS} if plugin["type"] == scene.PORTS else {}
        answer = host.plugin(
            plugin["type"], "DEL", conf, netns=sandbox, container_id=entry["containerId"], bindir=BINDIR
        )
        if not answer.ok:
            return False
    return True


@pytest.mark.parametrize(
    ("version", "backend", "reason"),
    [
        ("0.4.0", "nftables", "has nftables rules of pycni, which no other suite deletes"),
        ("1.0.0", "nftables", "has nftables rules of pycni, which no other suite deletes"),
        ("1.1.0", "iptables", "is of version 1.1.0, which the plugin that comes back does not know"),
    ],
)
def test_attachments_that_would_be_lost_stop_it(
    swapped: Host, version: str, backend: str, reason: str
) -> None:
    host, sandbox = swapped, swapped.sandbox("c1")
    _network(host, version, backend)
    container = _attach(host, sandbox)
    before = _state(host)
    done = _uninstall(host)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"\n  net {container} eth0: {reason}\n" in done.stderr
    assert "ATTACHED=detach" in done.stderr
    assert _state(host) == before
    # Once the container is gone nothing is in the way.
    host.run([COMMAND, "del", "net", sandbox.path], env=ENV)
    assert _uninstall(host).returncode == 0
    assert host.run(["cmp", str(BINDIR / scene.INTERFACE), str(GO / scene.INTERFACE)]) == ""


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0"])
def test_attachments_that_the_other_suite_deletes_are_no_obstacle(swapped: Host, version: str) -> None:
    host, sandbox = swapped, swapped.sandbox("c1")
    _network(host, version, "iptables")
    _attach(host, sandbox)
    assert _uninstall(host).returncode == 0
    assert _can_be_deleted_by_go(host, sandbox)
    assert "eth0" not in sandbox.links()


@pytest.mark.parametrize(("version", "backend"), [("0.4.0", "nftables"), ("1.1.0", "iptables")])
def test_detach_removes_attachments_before_the_uninstallation(
    swapped: Host, version: str, backend: str
) -> None:
    host = swapped
    _network(host, version, backend)
    warm_up = host.sandbox("warm-up")
    _attach(host, warm_up)
    host.run([COMMAND, "del", "net", warm_up.path], env=ENV)
    before = host.snapshot()
    sandbox = host.sandbox("c1")
    empty = host.snapshot()
    container = _attach(host, sandbox)
    make = ["make", "--silent", "--directory", str(ROOT), "uninstall", "ATTACHED=detach"]
    told = host.run(make)
    assert f"net {container} eth0: detached\n" in told
    assert "eth0" not in sandbox.links()
    assert host.snapshot() == empty
    assert before != empty
    assert host.run(["ls", "/var/lib/cni/results"]) == ""
    assert ("nft delete table ip pycni" in told) == (backend == "nftables")
    assert "rm -r /run/pycni" in told
    if backend == "nftables":
        # The commands it prints remove the rest.
        line = next(line for line in told.splitlines() if "nft delete table" in line)
        host.run(["sh", "-ec", line.rpartition(": ")[2]])
        assert "pycni" not in host.run(["nft", "list", "tables"])
        assert host.run(["sh", "-c", "ls -d /run/pycni 2>/dev/null || true"]) == ""


def test_leave_keeps_attachments_and_names_them(swapped: Host) -> None:
    host, sandbox = swapped, swapped.sandbox("c1")
    _network(host, "0.4.0", "nftables")
    container = _attach(host, sandbox)
    done = _uninstall(host, "--attached=leave")
    assert done.returncode == 0
    assert f"left: net {container} eth0: has nftables rules of pycni" in done.stdout
    assert "eth0" in sandbox.links()
    assert host.run(["cmp", str(BINDIR / scene.INTERFACE), str(GO / scene.INTERFACE)]) == ""


def test_attachments_that_nothing_can_delete_any_more(empty_opt: Host, bundle: Path) -> None:
    host, sandbox = empty_opt, empty_opt.sandbox("c1")
    host.run(["sh", "-c", f"mkdir -p /etc/cni/net.d; [ ! -d {GO} ] || mount -t tmpfs tmpfs {GO}"])
    install(host, bundle)
    _network(host, "0.4.0", "iptables")
    container = _attach(host, sandbox)
    done = _uninstall(host)
    assert done.returncode == 1
    assert f"net {container} eth0: needs bridge, which nothing replaces" in done.stderr
    assert _uninstall(host, "--attached=detach").returncode == 0
    assert "eth0" not in sandbox.links()


def test_rules_whose_cached_result_is_gone_are_named_and_removed(swapped: Host) -> None:
    host, sandbox = swapped, swapped.sandbox("c1")
    _network(host, "0.4.0", "nftables")
    container = _attach(host, sandbox)
    host.run(["sh", "-c", "rm -r /var/lib/cni/results"])
    done = _uninstall(host)
    assert f"net {container} eth0: has nftables rules of pycni" in done.stderr
    assert _uninstall(host, "--attached=detach").returncode == 0
    assert container not in host.run(["nft", "list", "ruleset"])


def test_an_attachment_that_cannot_be_detached_stops_it(swapped: Host) -> None:
    host, sandbox = swapped, swapped.sandbox("c1")
    _network(host, "0.4.0", "nftables")
    _attach(host, sandbox)
    # The lease cannot be removed.
    host.run(["mount", "--bind", "/var/lib/cni/networks", "/var/lib/cni/networks"])
    host.run(["mount", "-o", "remount,bind,ro", "/var/lib/cni/networks"])
    done = _uninstall(host, "--attached=detach")
    assert done.returncode == 1
    assert "nothing was removed, as not all attachments could be detached: " in done.stderr
    host.run(["umount", "/var/lib/cni/networks"])
    assert _uninstall(host, "--attached=detach").returncode == 0
    assert "eth0" not in sandbox.links()


def test_another_installation_that_serves_the_same_runtimes_is_enough(swapped: Host, bundle: Path) -> None:
    host, sandbox = swapped, swapped.sandbox("c1")
    _network(host, "0.4.0", "nftables")
    _attach(host, sandbox)
    # It takes the folder over: what the first one has left to remove is used by nobody.
    host.run([str(bundle / "pycni"), "--install", "--prefix=/opt/second"])
    assert _uninstall(host).returncode == 0
    host.run(["/opt/second/bin/pycni", "del", "net", sandbox.path], env=ENV)
    assert "eth0" not in sandbox.links()
