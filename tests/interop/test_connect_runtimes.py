"""`pycni network connect`, `publish` and their inverses on running containers of podman and containerd."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from plugin_table import ROOT
from tests.interop.served import fetch, wait_for_page
from tests.support.command import Command
from tests.support.containerd import PAGE, Containerd, why_no_containerd
from tests.support.podman import Podman, why_no_podman

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host

pytestmark = pytest.mark.interop

PODMANS_LIST = ROOT / "tests/data/networks/podman-87-debian.conflist"
CONTAINERDS_LIST = ROOT / "tests/data/networks/containerd-net.conflist"


class Pycni:
    """`pycni network` on a host; `folder` has the networks, and each page comes from "mine"."""

    def __init__(self, host: Host, tmp_path: Path, folder: str) -> None:
        self.host = host
        self._command = Command(tmp_path, host.bindir)
        self._env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "NETCONFPATH": folder}

    def run(self, *arguments: str) -> str:
        """Run a verb of `pycni network`. Return its output."""
        return self._run("network", *arguments)

    def _run(self, *arguments: str) -> str:
        done = self._command.run(self.host.place, *arguments, env=self._env, check=False)
        return done.stdout + done.stderr

    def publish(self, name: str) -> None:
        """Publish a port of a container, withdraw it, and publish it again."""
        address = self.host.outside.host_address
        assert self._run("publish", name, "8099:80") == ""
        assert wait_for_page(self.host, address, 8099, from_outside=True) == PAGE
        assert self._run("unpublish", name, "8099") == ""
        with pytest.raises(ConnectionRefusedError):
            fetch(self.host, address, 8099, from_outside=True)
        assert self._run("publish", name, "8099:80") == ""

    def has_port(self) -> bool:
        """Return whether a rule or the ledger names the port."""
        ledger = self.host.run(["ls", "/run/pycni/hostports"])
        return "8099" in ledger or any("8099" in each for each in self.host.snapshot().rules)

    def join_and_leave(self, name: str) -> None:
        """Connect a container, read its page over the new link, and disconnect it."""
        assert self.run("connect", "mine", name) == ""
        [shown] = json.loads(self.run("inspect", "mine"))
        [joined] = shown["Containers"].values()
        assert (joined["Name"], joined["Interface"]) == ("web", "eth1")
        assert wait_for_page(self.host, joined["IPv4Address"].split("/")[0]) == PAGE
        assert self.run("disconnect", "mine", name) == ""
        [shown] = json.loads(self.run("inspect", "mine"))
        assert shown["Containers"] == {}


@pytest.mark.skipif(bool(why_no_podman()), reason=why_no_podman() or "it is there")
def test_a_container_of_podman(served_host: Host, tmp_path: Path) -> None:
    networks = {"87-podman-bridge.conflist": PODMANS_LIST.read_text()}
    with Podman(served_host, tmp_path, networks, [served_host.bindir]) as podman:
        pycni = Pycni(served_host, tmp_path, str(podman.confdir))
        assert pycni.run("create", "mine") == "mine\n"
        container = podman.web("web", "--network", "podman")
        for name in ("web", container["Id"][:12]):
            pycni.join_and_leave(name)
            assert "eth1" not in podman.execute("web", "ip", "link")
            assert "dev eth0" in podman.execute("web", "ip", "route", "get", "192.0.2.77")
        pycni.publish("web")
        assert pycni.has_port()
        podman.remove("web")
        assert not pycni.has_port()
        # podman starts containers on a network of pycni's, too.
        podman.web("second", "--network", "mine")
        assert "network mine has attached containers" in pycni.run("rm", "mine")
        podman.remove("second")
        assert pycni.run("rm", "mine").startswith("mine\n")


@pytest.mark.skipif(bool(why_no_containerd()), reason=why_no_containerd() or "it is there")
def test_a_pod_of_containerd(served_host: Host, tmp_path: Path) -> None:
    folder = tmp_path / "containerd"
    folder.mkdir()
    with Containerd(served_host, folder, json.loads(CONTAINERDS_LIST.read_text())) as containerd:
        pycni = Pycni(served_host, tmp_path, "/etc/cni/net.d")
        assert pycni.run("create", "mine") == "mine\n"
        pod = containerd.run_pod("web", [])
        for name in ("web", pod[:12]):
            pycni.join_and_leave(name)
        pycni.publish("web")
        assert pycni.has_port()
        containerd.remove_pod(pod)
        assert not pycni.has_port()
        assert pycni.run("rm", "mine").startswith("mine\n")
