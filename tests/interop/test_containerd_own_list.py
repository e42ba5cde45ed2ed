"""Debian's containerd on the list that its own script installs: pods by CRI, and `ctr run --cni`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from plugin_table import ROOT
from tests.interop.served import wait_for_page
from tests.support.command import Command
from tests.support.containerd import BUSYBOX, IMAGE, PAGE, Containerd, Published, why_no_containerd

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(bool(why_no_containerd()), reason=why_no_containerd() or "it is there"),
]

OWN_LIST = ROOT / "tests/data/networks/containerd-net.conflist"


def test_pods_and_containers_of_ctr(served_host: Host, tmp_path: Path) -> None:
    host = served_host
    conflist = json.loads(OWN_LIST.read_text())
    # `ctr run --cni` reads these folders whatever the configuration says.
    host.run(["mount", "-t", "tmpfs", "tmpfs", "/opt"])
    host.run(["mkdir", "-p", "/opt/cni", "/etc/cni/net.d"])
    host.run(["ln", "-s", str(host.bindir), "/opt/cni/bin"])
    host.run(["cp", str(OWN_LIST), "/etc/cni/net.d"])
    command = Command(tmp_path, host.bindir)
    folder = tmp_path / "containerd"
    folder.mkdir()
    with Containerd(host, folder, conflist) as containerd:
        # The first pod brings what stays for all.
        containerd.remove_pod(containerd.run_pod("first", [Published(8080, 80)]))
        before = host.snapshot()
        pod = containerd.run_pod("web", [Published(8080, 80)])
        for address in (host.outside.host_address, host.outside.host_address6):
            assert wait_for_page(host, address, 8080, from_outside=True) == PAGE
        # Into a file: ctr loses what a short program prints, if it is late in reading it.
        ask = f"{BUSYBOX} wget -qO /asked/page http://{host.outside.host_address}:8080/".split()
        asked = tmp_path / "asked"
        asked.mkdir()
        shared = f"type=bind,src={asked},dst=/asked,options=rbind:rw"
        cgroup = ["--cgroup", f"{containerd.cgroup}/ctr"]
        containerd.ctr("run", "--rm", "--cni", *cgroup, "--mount", shared, IMAGE, "asks", *ask)
        assert (asked / "page").read_text() == PAGE
        # In the background nobody calls DEL. GC finds that the namespace is gone.
        containerd.ctr("run", "--detach", "--cni", *cgroup, IMAGE, "stays")
        containerd.ctr("task", "delete", "--force", "stays")
        assert "10.88." in command.run(host.place, "gc", "--dry-run", "--dead-only", conflist["name"]).stdout
        command.run(host.place, "gc", "--dead-only", conflist["name"])
        assert wait_for_page(host, host.outside.host_address, 8080, from_outside=True) == PAGE
        containerd.remove_pod(pod)
        assert before.differences(host.snapshot()) == []
