"""An old lease whose holder is attached still: neither the clock nor another /run makes it a dead one's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni.errors import Code
from cni.testing import make_bindir
from cni.testing.host import Host
from cni.testing.place import CommandError, why_no_namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator

# A caller whose /run is its own, and to whose clock the machine has started just now.
ELSEWHERE = """#!/bin/sh
exec unshare --mount --time --boottime -{uptime_s} sh -c '
    mount -t tmpfs tmpfs /run && mkdir /run/lock
    exec {plugin}
'
"""
IPAM = {"type": "host-local", "subnet": "10.1.0.0/29"}
BRIDGE = {"cniVersion": "1.1.0", "name": "net1", "type": "bridge", "bridge": "br1", "ipam": IPAM}
LONG = "c" * 100


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    names = {"host-local": "cni_host_local_ipam", "bridge": "cni_bridge"}
    with Host(make_bindir(tmp_path, names)) as host:
        try:
            host.run(["unshare", "--time", "true"])
        except CommandError:
            # Linux in user mode has none.
            pytest.skip("the kernel has no time namespaces")
        yield host


def elsewhere(host: Host, folder: Path, verb: str, container_id: str, **ipam: Any) -> Any:
    wrapper = folder / "elsewhere" / "host-local"
    if not wrapper.exists():
        # The machine starts once for all calls. A later start would make their leases old ones.
        uptime_s = int(float(Path("/proc/uptime").read_text().split()[0])) - 1
        wrapper.parent.mkdir()
        wrapper.write_text(ELSEWHERE.format(uptime_s=uptime_s, plugin=host.bindir / "host-local"))
        wrapper.chmod(0o755)
    conf = BRIDGE | {"type": "host-local", "ipam": IPAM | ipam}
    nothing = "/run/netns/none"
    return host.plugin(
        "host-local", verb, conf, netns=nothing, container_id=container_id, bindir=wrapper.parent
    )


@pytest.mark.parametrize("container_id", ["alive", LONG], ids=["short", "long"])
def test_an_attached_container_keeps_its_address(host: Host, tmp_path: Path, container_id: str) -> None:
    """The pool has five addresses: of one that lives, and of four that the kernel knows no more."""
    sandbox = host.sandbox("c1")
    host.plugin("bridge", "ADD", BRIDGE, netns=sandbox, container_id=container_id).must()
    folder = "/var/lib/cni/networks/net1"
    [own] = [each for each in sandbox.addresses("eth0") if each.startswith("10.1.")]
    for number in range(3, 7):
        lease = f"printf 'gone{number}\\r\\neth0' > {folder}/10.1.0.{number}"
        host.run(["sh", "-c", lease])
    host.run(["sleep", "5"])
    refused = elsewhere(host, tmp_path, "ADD", "c8", rangeEnd="10.1.0.2")
    assert refused.code == Code.POOL
    given = [
        elsewhere(host, tmp_path, "ADD", f"n{number}").must()["ips"][0]["address"] for number in range(4)
    ]
    assert own not in given
    assert elsewhere(host, tmp_path, "ADD", "n9").code == Code.POOL
    assert elsewhere(host, tmp_path, "ADD", container_id).code == Code.ALREADY_EXISTS
    sandbox.delete()
    assert elsewhere(host, tmp_path, "ADD", "n9").addresses == [own.split("/")[0]]
