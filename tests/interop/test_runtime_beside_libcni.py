"""Our runtime on the attachments that containerd has made with libcni, the Go library."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from cni.runtime.cache import Cache, Entry, show_entry
from cni.runtime.chain import Runtime
from cni.runtime.derive import RuntimeArgs
from cni.runtime.network import parse_network
from plugin_table import ROOT
from tests.support.containerd import Containerd, Published, why_no_containerd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cni.testing import Host

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(bool(why_no_containerd()), reason=why_no_containerd() or "it is there"),
]


@pytest.fixture
def containerd(host: Host, tmp_path: Path) -> Iterator[Containerd]:
    with Containerd(host, tmp_path, json.loads((ROOT / "conf/10-bridge.conflist").read_text())) as containerd:
        yield containerd


def _entry(host: Host, pod: str) -> Entry:
    """Return what libcni has cached of a pod's link on the cluster network."""
    [entry] = [
        each for each in host.call(Cache().list_entries) if each.container_id == pod and each.ifname == "eth0"
    ]
    return entry


def test_the_cache_file_is_libcnis_member_for_member(host: Host, containerd: Containerd) -> None:
    entry = _entry(host, containerd.run_pod("web", [Published(8080, 80)]))
    file = f"/var/lib/cni/results/{entry.network}-{entry.container_id}-eth0"
    theirs, ours = json.loads(host.run(["cat", file])), json.loads(show_entry(entry))
    assert ours == theirs
    assert list(ours) == list(theirs)
    # What libcni writes of maps is sorted; capability args are structures of containerd's.
    assert json.dumps(ours["result"]) == json.dumps(theirs["result"])
    assert host.run(["stat", "-c", "%a", file, "/var/lib/cni/results"]).split() == ["600", "700"]


def test_a_pod_of_containerd_is_detached_by_our_runtime(host: Host, containerd: Containerd) -> None:
    before = host.snapshot()
    pod = containerd.run_pod("web", [Published(8080, 80)])
    entry = _entry(host, pod)
    network = parse_network(entry.config, "the cached list")
    told = RuntimeArgs(pod, entry.sandbox, "eth0")
    runtime = Runtime([str(host.bindir)], {"PATH": os.environ["PATH"]})
    host.call(runtime.check, network, told)
    host.call(runtime.delete, network, told)
    left = [line for line in before.differences(host.snapshot()) if "8080" in line or "veth" in line]
    # What containerd keeps of its pod is not ours to remove.
    assert [line for line in left if "/run/containerd" not in line and "cni-loopback" not in line] == []
    containerd.remove_pod(pod)
