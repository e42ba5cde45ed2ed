"""podman's own networks, whose containers find each other by name: podman adds the plugin for that itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.place import CommandError
from tests.support.containerd import PAGE
from tests.support.podman import Podman, why_no_podman

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cni.testing import Host

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(bool(why_no_podman()), reason=why_no_podman() or "it is there"),
]


@pytest.fixture
def podman(served_host: Host, installed: Path, tmp_path: Path) -> Iterator[Podman]:
    """Run podman with our plugins alone, and with the networks that it creates itself."""
    with Podman(served_host, tmp_path, {}, [installed]) as podman:
        yield podman


def _addresses(container: dict[str, Any], network: str) -> list[str]:
    shown = container["NetworkSettings"]["Networks"][network]
    return [each for each in (shown["IPAddress"], shown["GlobalIPv6Address"]) if each]


def _resolve(podman: Podman, container: str, name: str) -> list[str]:
    """Return the addresses of a name as the container's resolver finds them; [] for none."""
    try:
        shown = podman.podman("exec", container, "/bin/busybox", "nslookup", name)
    except CommandError:
        return []
    found = [line.split(":", 1)[1].split()[0] for line in shown.splitlines() if line.startswith("Address")]
    # The first one is the server.
    return sorted(found[1:])


def test_containers_of_podmans_networks_find_each_other(podman: Podman) -> None:
    podman.podman("network", "create", "--ipv6", "--subnet", "10.91.0.0/24", "--subnet", "fd91::/64", "one")
    podman.podman("network", "create", "--subnet", "10.92.0.0/24", "two")
    podman.podman("network", "create", "--internal", "--subnet", "10.93.0.0/24", "inner")
    assert json.loads(podman.podman("network", "inspect", "one"))[0]["dns_enabled"] is True
    web = podman.web("web", "--network", "one", "--network-alias", "www", "--network-alias", "all")
    podman.web("asker", "--network", "one", "--network-alias", "all")
    # The same name on another network: its own container there.
    other = podman.web("other", "--network", "two", "--network-alias", "www")
    for name in ("web", "www", "web.dns.podman", "WEB", web["Id"][:12]):
        assert _resolve(podman, "asker", name) == sorted(_addresses(web, "one")), name
    assert len(_resolve(podman, "asker", "all")) == 4
    assert podman.fetch("asker", "web") == PAGE
    assert _resolve(podman, "asker", "other") == _resolve(podman, "asker", "other.dns.podman") == []
    # Connected while it runs, and disconnected again.
    podman.podman("network", "connect", "--alias", "late", "two", "asker")
    assert _resolve(podman, "asker", "other") == _addresses(other, "two")
    assert _resolve(podman, "other", "late") == _addresses(podman.inspect("asker"), "two")
    assert _resolve(podman, "asker", "www") == sorted(_addresses(web, "one"))
    podman.podman("network", "disconnect", "two", "asker")
    assert _resolve(podman, "asker", "other") == _resolve(podman, "other", "late") == []
    # An internal network has no names: podman leaves the plugin out.
    podman.web("quiet", "--network", "inner")
    assert _resolve(podman, "quiet", "web") == []
    podman.remove("web")
    assert _resolve(podman, "asker", "web") == []
    again = podman.web("web", "--network", "one")
    assert _resolve(podman, "asker", "web") == sorted(_addresses(again, "one"))
