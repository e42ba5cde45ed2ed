"""Debian's podman, with its CNI backend, runs containers with the installed suite as its plugins."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.place import CommandError
from plugin_table import ROOT
from tests.interop.served import fetch, served, wait_for_page
from tests.support.containerd import PAGE
from tests.support.podman import Podman, why_no_podman

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cni.testing import Host, Snapshot

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(bool(why_no_podman()), reason=why_no_podman() or "it is there"),
]

CONF = json.loads((ROOT / "conf/87-podman.conflist").read_text())
PUBLISHED = ["--network", "podman", "-p", "8080:80"]


@pytest.fixture
def host(served_host: Host) -> Host:
    """Return a host that has the installed suite."""
    return served_host


@pytest.fixture(params=["iptables", "nftables"])
def backend(request: pytest.FixtureRequest) -> str:
    """Return each firewall backend."""
    return str(request.param)


def _network(backend: str) -> dict[str, str]:
    """Return the network that conf/ ships for podman, with a backend, as a file."""
    network: dict[str, Any] = json.loads(json.dumps(CONF))
    keys = {"bridge": "ipMasqBackend", "portmap": "backend"}
    for plugin in network["plugins"]:
        plugin[keys[plugin["type"]]] = backend
    return {"87-podman.conflist": json.dumps(network)}


@pytest.fixture
def podman(host: Host, installed: Path, backend: str, tmp_path: Path) -> Iterator[Podman]:
    """Run podman with our plugins and no others."""
    with Podman(host, tmp_path, _network(backend), [installed]) as podman:
        yield podman


@pytest.fixture
def alone(host: Host, installed: Path, tmp_path: Path) -> Iterator[Podman]:
    """Run podman with our plugins alone, and with the networks that it creates itself."""
    with Podman(host, tmp_path, {}, [installed]) as podman:
        yield podman


def _left(before: Snapshot, host: Host) -> list[str]:
    return before.differences(host.snapshot())


def _address(container: dict[str, Any], network: str = "podman") -> str:
    return str(container["NetworkSettings"]["Networks"][network]["IPAddress"])


def test_a_published_port_answers_and_nothing_is_left(host: Host, podman: Podman) -> None:
    # The first container brings what stays for all: the bridge, base rules, shared chains.
    podman.web("first", *PUBLISHED)
    podman.remove("first")
    before, calls = host.snapshot(), served(host)
    web = podman.web("web", *PUBLISHED)
    assert fetch(host, host.outside.host_address, from_outside=True) == PAGE
    assert fetch(host, host.outside.host_address) == PAGE
    assert fetch(host, "127.0.0.1") == PAGE
    assert fetch(host, _address(web), 80) == PAGE
    assert served(host) >= calls + 2
    podman.remove("web")
    assert _left(before, host) == []


def test_a_container_that_ends_leaves_nothing(host: Host, podman: Podman) -> None:
    shown = podman.run(*PUBLISHED, command=["ip", "addr"])
    assert "10.88.0.2/16" in shown
    before = host.snapshot()
    podman.run(*PUBLISHED, command=["true"])
    with pytest.raises(CommandError):
        podman.run(*PUBLISHED, command=["false"])
    assert _left(before, host) == []


def test_containers_reach_each_other(host: Host, podman: Podman) -> None:
    one, two = podman.web("one", *PUBLISHED), podman.web("two", "--network", "podman", "-p", "8081:80")
    assert podman.fetch("one", _address(two)) == PAGE
    assert podman.fetch("two", _address(one)) == PAGE
    assert podman.fetch("two", host.outside.host_address, 8080) == PAGE
    assert podman.fetch("one", host.outside.host_address, 8080) == PAGE
    assert fetch(host, host.outside.host_address, 8081, from_outside=True) == PAGE


@pytest.mark.parametrize("backend", ["nftables"], indirect=True)
def test_addresses_of_choice(podman: Podman) -> None:
    chosen = ["--network", "podman", "--ip", "10.88.3.3", "--mac-address", "02:00:00:00:00:33"]
    web = podman.web("web", *chosen)
    assert _address(web) == "10.88.3.3"
    assert web["NetworkSettings"]["Networks"]["podman"]["MacAddress"] == "02:00:00:00:00:33"
    with pytest.raises(CommandError, match=r"10\.88\.3\.3"):
        podman.web("other", *chosen)
    podman.remove("web")
    assert _address(podman.web("again", *chosen)) == "10.88.3.3"


def test_stopped_and_started_again(host: Host, podman: Podman) -> None:
    podman.web("web", *PUBLISHED)
    podman.podman("stop", "-t", "0", "web")
    assert [name for name in host.links() if name.startswith("veth")] == []
    podman.podman("start", "web")
    assert wait_for_page(host, host.outside.host_address, 8080, from_outside=True) == PAGE


def test_reload_brings_back_rules_that_were_flushed(host: Host, podman: Podman) -> None:
    address = _address(podman.web("web", *PUBLISHED))
    host.run(["nft", "flush", "ruleset"])
    # podman itself listens on the port, and does not answer.
    with pytest.raises(OSError, match="timed out"):
        fetch(host, host.outside.host_address, from_outside=True, timeout_s=1)
    podman.podman("network", "reload", "web")
    assert fetch(host, host.outside.host_address, from_outside=True) == PAGE
    assert _address(podman.inspect("web")) == address


def test_networks_that_podman_creates_need_no_other_plugins(host: Host, alone: Podman) -> None:
    subnets = ["--subnet", "10.89.7.0/24", "--subnet", "fd00:89::/64"]
    alone.podman("network", "create", "--ipv6", *subnets, "net2")
    written = json.loads((alone.confdir / "net2.conflist").read_text())
    assert [each["type"] for each in written["plugins"]][2:] == ["firewall", "tuning", "dnsname"]
    [told] = json.loads(alone.podman("network", "inspect", "net2"))
    assert [each["subnet"] for each in told["subnets"]] == ["10.89.7.0/24", "fd00:89::/64"]
    assert "net2" in alone.podman("network", "ls", "--format", "{{.Name}}").split()
    before = host.snapshot()
    web = alone.web("web", "--network", "net2", "-p", "8080:80")
    address6 = web["NetworkSettings"]["Networks"]["net2"]["GlobalIPv6Address"]
    alone.web("other", "--network", "net2")
    assert f"-d {_address(web, 'net2')}" in host.run(["iptables-save", "-t", "filter"])
    assert fetch(host, host.outside.host_address, from_outside=True) == PAGE
    assert fetch(host, host.outside.host_address6, from_outside=True) == PAGE
    assert alone.fetch("other", _address(web, "net2")) == PAGE
    assert alone.fetch("other", address6) == PAGE
    alone.remove("web")
    alone.remove("other")
    alone.podman("network", "rm", "net2")
    assert list(alone.confdir.glob("*.conflist")) == []
    # The shared chains remain.
    assert [line for line in _left(before, host) if not line.startswith("+ rules: host: ip")] == []


def test_two_networks_at_once(host: Host, alone: Podman) -> None:
    for name in ("net2", "net3"):
        alone.podman("network", "create", name)
    web = alone.web("web", "--network", "net2", "-p", "8080:80")
    alone.web("other", "--network", "net3")
    alone.podman("network", "connect", "net3", "web")
    assert alone.fetch("other", _address(alone.inspect("web"), "net3")) == PAGE
    alone.podman("network", "disconnect", "net2", "web")
    assert list(alone.inspect("web")["NetworkSettings"]["Networks"]) == ["net3"]
    with pytest.raises(OSError, match=r"timed out|No route|refused"):
        fetch(host, _address(web, "net2"), 80, timeout_s=1)
