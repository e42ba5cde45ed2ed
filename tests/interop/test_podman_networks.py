"""Debian's podman and buildah with the plugins of this suite only, on their own networks."""

from __future__ import annotations

import os
import shutil
import signal
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import warm
from cni.testing.place import CommandError
from plugin_table import ROOT
from tests.interop.served import read_page, wait_for_page
from tests.support.containerd import BUSYBOX, IMAGE, PAGE, write_image
from tests.support.podman import Podman, why_no_podman

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cni.testing import Host, Snapshot

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(bool(why_no_podman()), reason=why_no_podman() or "it is there"),
]

# As Debian's package installs it.
OWN_LIST = ROOT / "tests/data/networks/podman-87-debian.conflist"
_UNTAGGED = ["PVID", "Egress Untagged"]


@pytest.fixture
def host(served_host: Host) -> Host:
    """Return a host that has the installed suite. New links get no link-local addresses at a later time."""
    served_host.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/default/addr_gen_mode"])
    return served_host


@pytest.fixture
def podman(host: Host, installed: Path, tmp_path: Path) -> Iterator[Podman]:
    """Run podman with its own network, and with our plugins and no others."""
    networks = {"87-podman-bridge.conflist": OWN_LIST.read_text()}
    with Podman(host, tmp_path, networks, [installed]) as podman:
        yield podman


def _left(before: Snapshot, host: Host) -> list[str]:
    """Return what remains, but for shared chains, those of gateways and files of helpers."""
    own = ("10.8", "192.168.60", "fd00:89", "cni-podman")
    lines = [each for each in before.differences(host.snapshot()) if "/run/pycni/helpers/" not in each]
    return [
        line
        for line in lines
        if not line.startswith("+ rules: host: ip")
        or ("CNI-GW-" not in line and any(text in line for text in own))
    ]


def _addresses(container: dict[str, Any]) -> dict[str, str]:
    return {name: str(each["IPAddress"]) for name, each in container["NetworkSettings"]["Networks"].items()}


def _reaches(podman: Podman, name: str, address: str, wait_s: int = 10) -> bool:
    """Return whether a container gets the page of another one."""
    url = f"http://[{address}]/" if ":" in address else f"http://{address}/"
    try:
        page = podman.execute(name, "timeout", str(wait_s), "/bin/busybox", "wget", "-qO-", url)
    except CommandError:
        return False
    return page == PAGE


def test_each_kind_of_network_that_podman_creates(host: Host, podman: Podman) -> None:
    host.run(["ip", "-batch", "-"], "link add eth1 type veth peer name lan netns outside\nlink set eth1 up\n")
    lan = "addr add 192.168.60.1/24 dev lan\nlink set lan up\n"
    host.outside.sandbox.run(["ip", "-batch", "-"], lan)
    before = host.snapshot()
    ranged = ["--subnet", "10.89.60.0/24", "--ip-range", "10.89.60.64/28", "--gateway", "10.89.60.254"]
    dual = ["--subnet", "10.89.61.0/24", "--subnet", "fd00:89:61::/64"]
    kinds = {
        "inside": ["--internal"],
        "ranged": [*ranged, "-o", "mtu=1400", "--disable-dns"],
        "shut": ["-o", "isolate=true", "--ipv6", *dual],
        "closed": ["-o", "isolate=true", "--subnet", "10.89.62.0/24"],
        "lan": ["--driver=macvlan", "-o", "parent=eth1", "--subnet", "192.168.60.0/24"],
    }
    for name, options in kinds.items():
        podman.podman("network", "create", *options, name)
    named = "inside:interface_name=in0,ip=10.89.0.9,mac=02:00:00:00:00:09"
    web = podman.web("web", *(f"--network={each}" for each in (named, "ranged", "shut", "lan")))
    podman.web("other", "--network", "inside,closed")
    at = _addresses(web)
    links = podman.execute("web", "ip", "addr")
    assert "in0@" in links
    assert "link/ether 02:00:00:00:00:09" in links
    assert " mtu 1400 " in links
    assert "inet6 fd00:89:61::2/64 scope global" in links
    assert at["inside"] == "10.89.0.9"
    assert ip_address(at["ranged"]) in ip_network("10.89.60.64/28")
    assert "10.89.60.254/24" in host.run(["ip", "-br", "addr"])
    assert wait_for_page(host, at["ranged"]) == PAGE
    # The internal network leads to neighbours only, the LAN to its machines.
    assert _reaches(podman, "other", at["inside"])
    assert " 10.89.0.1 " not in host.run(["ip", "-br", "addr"])
    assert host.outside.sandbox.call(read_page, at["lan"], 80, 10) == PAGE
    # An isolated network reaches one that is not isolated, and no other isolated one.
    assert _reaches(podman, "other", at["ranged"])
    assert not _reaches(podman, "other", at["shut"], wait_s=1)
    for name in ("web", "other"):
        podman.remove(name)
    podman.podman("network", "rm", *kinds)
    assert _left(before, host) == []


@pytest.mark.needs_kernel("vlan_filtering", "ipvlan")
def test_networks_with_a_vlan_or_ipvlan(host: Host, podman: Podman) -> None:
    before = host.snapshot()
    bridge = ["--subnet", "10.89.64.0/24", "-o", "vlan=64"]
    # The link of the default route is the parent: this podman takes no other for ipvlan.
    ipvlan = ["--driver=ipvlan", "-o", "mode=l2", "--subnet", "192.0.2.0/24", "--ip-range", "192.0.2.64/28"]
    podman.podman("network", "create", *bridge, "tagged")
    podman.podman("network", "create", *ipvlan, "lan")
    web = podman.web("web", "--network", "tagged,lan")
    podman.web("other", "--network", "tagged")
    at = _addresses(web)
    ports = host.json(["bridge", "-j", "vlan", "show"])
    members = [each["ifname"] for each in ports if {"vlan": 64, "flags": _UNTAGGED} in each["vlans"]]
    # Those of the two containers, and that of the gateway.
    assert len(members) == 3
    assert wait_for_page(host, at["tagged"]) == PAGE
    assert _reaches(podman, "other", at["tagged"])
    assert host.outside.sandbox.call(read_page, at["lan"], 80, 10) == PAGE
    for name in ("web", "other"):
        podman.remove(name)
    bridge_name = podman.podman("network", "inspect", "-f", "{{.NetworkInterface}}", "tagged").strip()
    podman.podman("network", "rm", "tagged", "lan")
    # Of this network podman removes the bridge, but not the gateway's link, whichever plugin made them.
    host.run(["ip", "link", "del", f"{bridge_name}.64"])
    assert _left(before, host) == []


def test_published_ports_pods_and_a_reboot(host: Host, podman: Podman, tmp_path: Path) -> None:
    here = host.outside.host_address
    # The first container brings what stays for all.
    podman.run("-p", "8080:80", command=["true"])
    before = host.snapshot()
    forms = ["8080:80", f"{here}:8081:80/tcp", "127.0.0.1:8082:80", "8090-8092:79-81", "53:53/udp", "80"]
    web = podman.web("web", *(f"-p={each}" for each in forms))
    published = {int(each["HostPort"]) for each in web["NetworkSettings"]["Ports"]["80/tcp"]}
    chosen = published - {8080, 8081, 8082, 8091}
    assert len(chosen) == 1
    for port in (8080, 8081, 8091, *chosen):
        assert wait_for_page(host, here, port, from_outside=True) == PAGE
    assert wait_for_page(host, "127.0.0.1", 8082) == PAGE
    assert "--dport 53 -j DNAT" in host.run(["iptables-save", "-t", "nat"])
    write_image(tmp_path / "image.tar")
    podman.podman("load", "-qi", str(tmp_path / "image.tar"))
    podman.podman("pod", "create", "--name", "pod", "-p", "8084:80", "--infra-image", IMAGE)
    podman.podman("pod", "start", "pod")
    assert wait_for_page(host, here, 8084, from_outside=True) == PAGE
    podman.podman("restart", "-t", "0", "web")
    host.run(["nft", "flush", "ruleset"])
    podman.podman("network", "reload", "--all")
    for port in (8080, 8084):
        assert wait_for_page(host, here, port, from_outside=True) == PAGE
    _reboot(host, podman)
    podman.podman("start", "web")
    podman.podman("pod", "start", "pod")
    for port in (8080, 8084):
        assert wait_for_page(host, here, port, from_outside=True) == PAGE
    podman.podman("pod", "rm", "-f", "-t", "0", "pod")
    podman.remove("web")
    # The bridge is another one.
    assert [line for line in _left(before, host) if '"info_kind": "bridge"' not in line] == []


@pytest.mark.skipif(not shutil.which("buildah"), reason="not installed: buildah")
def test_buildah_builds_on_a_network(host: Host, podman: Podman) -> None:
    def buildah(*arguments: str) -> str:
        # It asks for its working directory, which is not of this mount namespace.
        return host.run(["sh", "-c", 'cd / && exec buildah "$@"', "sh", *arguments], env=podman.env).strip()

    web = podman.web("web", "-p", "8080:80")
    assert wait_for_page(host, _addresses(web)["podman"]) == PAGE
    podman.podman("network", "create", "--subnet", "10.89.63.0/24", "built")
    name = buildah("from", "scratch")
    buildah("copy", name, str(BUSYBOX), "/bin/busybox")
    before = host.snapshot()
    for network, address in (("podman", _addresses(web)["podman"]), ("built", host.outside.host_address)):
        port = 80 if network == "podman" else 8080
        crun = ["--runtime", "crun", "--runtime-flag", "cgroup-manager=disabled"]
        run = ["run", *crun, "--network", network, name, "/bin/busybox"]
        assert buildah(*run, "wget", "-qO-", f"http://{address}:{port}/") == PAGE
    # The bridge of the new network and what it shares stay; podman removes it with the network.
    podman.podman("network", "rm", "built")
    assert _left(before, host) == []


def _reboot(host: Host, podman: Podman) -> None:
    """Lose processes, namespaces, links, rules, the content of /run and podman's temporary files."""
    for name in podman.podman("ps", "-q").split():
        state = podman.inspect(name)["State"]
        for pid in (state["ConmonPid"], state["Pid"]):
            os.kill(pid, signal.SIGKILL)
    warm.end(host.place)
    host.run(["nft", "flush", "ruleset"])
    host.run(["ip", "link", "del", "cni-podman0"])
    lost = "find /run -mindepth 1 -maxdepth 1 ! -name netns -exec rm -rf {} +"
    unnamed = "for each in /run/netns/netns-*; do umount $each; rm $each; done"
    # As /usr/lib/tmpfiles.d/podman.conf says. test_host_local_boot.py has leases that survive a boot.
    removed = "rm -rf /var/lib/cni/networks /dev/shm/libpod_lock"
    host.run(["sh", "-c", f"{unnamed}; {lost}; {removed}"])
