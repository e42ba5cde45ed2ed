"""Debian's containerd runs pods with the installed suite as its plugins, as on a node of Kubernetes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from plugin_table import ROOT
from tests.interop.served import fetch, served, wait_for_page
from tests.support.containerd import PAGE, Containerd, Published, why_no_containerd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cni.testing import Host

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(bool(why_no_containerd()), reason=why_no_containerd() or "it is there"),
]


@pytest.fixture
def host(served_host: Host) -> Host:
    """Return a host that has the installed suite."""
    return served_host


@pytest.fixture(params=["iptables", "nftables"])
def containerd(request: pytest.FixtureRequest, host: Host, tmp_path: Path) -> Iterator[Containerd]:
    """Run containerd on the network that conf/ ships, with each of the backends."""
    conflist = json.loads((ROOT / "conf/10-bridge.conflist").read_text())
    for plugin in conflist["plugins"]:
        key = {"bridge": "ipMasqBackend", "portmap": "backend"}.get(plugin["type"])
        if key:
            plugin[key] = request.param
    with Containerd(host, tmp_path, conflist) as containerd:
        yield containerd


def test_a_pods_published_port_answers_and_nothing_is_left(host: Host, containerd: Containerd) -> None:
    before, calls = host.snapshot(), served(host)
    pod = containerd.run_pod("web", [Published(8080, 80)])
    # loopback, bridge with its IPAM in the same worker, portmap.
    assert served(host) == calls + 3
    assert wait_for_page(host, host.outside.host_address, 8080, from_outside=True) == PAGE
    assert fetch(host, host.outside.host_address, 8080) == PAGE
    assert fetch(host, "127.0.0.1", 8080) == PAGE
    containerd.remove_pod(pod)
    assert served(host) >= calls + 6
    left = [line for line in before.differences(host.snapshot()) if _is_left_behind(line)]
    assert left == []


def _is_left_behind(difference: str) -> bool:
    """Return whether a pod has left it; the bridge stays for the next pod, as do shared chains."""
    return difference.startswith("+ files") or "veth" in difference or "8080" in difference


def test_a_pod_outlives_its_containerd(host: Host, containerd: Containerd) -> None:
    before = host.snapshot()
    pod = containerd.run_pod("web", [Published(8080, 80)])
    containerd.restart()
    assert wait_for_page(host, host.outside.host_address, 8080, from_outside=True) == PAGE
    with pytest.raises(RuntimeError, match="8080"):
        containerd.run_pod("late", [Published(8080, 80)])
    containerd.remove_pod(pod)
    containerd.remove_pod(containerd.run_pod("next", [Published(8080, 80)]))
    left = [line for line in before.differences(host.snapshot()) if _is_left_behind(line)]
    assert left == []


def test_two_pods_have_ports_of_their_own(host: Host, containerd: Containerd) -> None:
    containerd.run_pod("one", [Published(8081, 80)])
    containerd.run_pod("two", [Published(8082, 80)])
    for port in (8081, 8082):
        assert wait_for_page(host, host.outside.host_address, port, from_outside=True) == PAGE


def test_a_taken_host_port_is_told_by_containerd(containerd: Containerd) -> None:
    containerd.run_pod("one", [Published(8080, 80)])
    with pytest.raises(RuntimeError, match="8080"):
        containerd.run_pod("two", [Published(8080, 80)])
