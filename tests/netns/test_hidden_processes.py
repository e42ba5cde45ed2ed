"""Callers from whom /proc hides processes: nothing at /proc/PID does not prove that a process is gone."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from cni.kernel import netns
from cni.testing import GO
from cni.testing.wired import Wired
from tests.netns.attached_world import BACKENDS
from tests.support import scene

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.testing import Host

# A caller without the capability, which may not trace other users' processes.
WITHOUT = ["setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace"]
IPAM = {"type": scene.IPAM, "ranges": [[{"subnet": "10.9.0.0/24"}]]}
FREE, INVALID_NETNS, TAKEN = 0, 8, 103


# Without "gid" root's group sees all with 2, and 4 knows no group.
@pytest.fixture(params=["hidepid=2,gid=1", "hidepid=4"])
def pid(host: Host, request: pytest.FixtureRequest) -> Iterator[str]:
    """Another user's process in a network namespace of its own, on a host whose /proc hides processes."""
    host.run(["mount", "-t", "proc", "-o", request.param, "proc", "/proc"])
    sandbox = host.sandbox("c9")
    lines = "setpriv --reuid 1000 --regid 1000 --clear-groups sleep 1200 >/dev/null 2>&1 & echo $!"
    found = sandbox.run(["sh", "-c", lines]).strip()
    yield found
    host.run(["kill", found], check=False)


def call(host: Host, verb: str, conf: dict[str, Any], path: str, container_id: str) -> int:
    """Call a plugin as a caller from which processes are hidden; return the error's code."""
    variables = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": container_id,
        "CNI_NETNS": path,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(host.bindir),
        "PYCNI_WARM": "off",
    }
    given = [f"{name}={value}" for name, value in variables.items()]
    program = [*WITHOUT, "env", *given, str(host.bindir / str(conf["type"]))]
    done = host.place.run(program, json.dumps(conf), check=False)
    return int(json.loads(done.stdout or "{}").get("code", 0))


def leases(host: Host) -> list[str]:
    return host.run(["find", "/var/lib/cni/networks", "-name", "10.*"]).split()


def test_a_process_that_is_hidden_is_told_from_one_that_is_gone(host: Host, pid: str) -> None:
    code = "import sys; from cni.kernel import netns; print([netns.is_gone(each) for each in sys.argv[1:]])"
    paths = [f"/proc/{pid}/ns/net", f"/proc/{1 << 30}/ns/net", "/proc/0/ns/net", f"/proc/{1 << 70}/ns/net"]
    assert host.place.run([*WITHOUT, "ls", "-d", f"/proc/{pid}"], check=False).returncode
    assert host.run([*WITHOUT, sys.executable, "-c", code, *paths]).strip() == "[False, True, True, True]"
    assert not host.call(netns.is_gone, paths[0])
    host.run(["kill", pid])
    host.run(["sh", "-c", f"while [ -e /proc/{pid} ]; do sleep 0.02; done"], timeout_s=60)
    assert host.run([*WITHOUT, sys.executable, "-c", code, paths[0]]).strip() == "[True]"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_hidden_holder_keeps_its_port(host: Host, pid: str, backend: str) -> None:
    c2 = Wired(host).container(2)
    path = f"/proc/{pid}/ns/net"
    address = {"address": "10.22.0.9/16", "interface": 0}
    # As behind a plugin whose results name no link of the host.
    first = {"interfaces": [{"name": "eth0", "sandbox": path}], "ips": [address], "cniVersion": "1.0.0"}
    conf: dict[str, Any] = {"cniVersion": "1.0.0", "name": "net1", "type": scene.PORTS, "backend": backend}
    conf |= {"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}}
    host.plugin(scene.PORTS, "ADD", conf | {"prevResult": first}, netns=path, container_id="c9").must()
    second = conf | {"prevResult": c2.prev_result}
    assert call(host, "ADD", second, c2.sandbox.path, "c2") == TAKEN
    host.run(["kill", pid])
    host.run(["sh", "-c", f"while [ -e /proc/{pid} ]; do sleep 0.02; done"], timeout_s=60)
    assert call(host, "ADD", second, c2.sandbox.path, "c2") == FREE


def test_del_of_a_hidden_process_detaches_it(host: Host, pid: str) -> None:
    conf = {"cniVersion": "0.3.1", "name": "net1", "type": scene.INTERFACE, "bridge": "br1", "ipam": IPAM}
    path = f"/proc/{pid}/ns/net"
    host.plugin(scene.INTERFACE, "ADD", conf, netns=path, container_id="c9").must()
    assert len(leases(host)) == 1
    assert call(host, "DEL", conf, path, "c9") == FREE
    assert leases(host) == []
    assert not any(each.startswith("veth") for each in host.links())


@pytest.mark.interop
@scene.needs_go
def test_del_frees_no_address_that_a_hidden_process_uses(host: Host, pid: str) -> None:
    """Of a pair of the Go plugins nothing is known without a result, which DEL gets from 0.4.0 on."""
    conf = {"cniVersion": "0.3.1", "name": "net1", "type": scene.INTERFACE, "bridge": "br1", "ipam": IPAM}
    path = f"/proc/{pid}/ns/net"
    host.plugin(scene.INTERFACE, "ADD", conf, netns=path, container_id="c9", bindir=GO).must()
    held = leases(host)
    assert call(host, "DEL", conf, path, "c9") == INVALID_NETNS
    assert leases(host) == held
    assert any(each.startswith("veth") for each in host.links())
    host.plugin(scene.INTERFACE, "DEL", conf, netns=path, container_id="c9").must()
    assert leases(host) == []
    assert not any(each.startswith("veth") for each in host.links())
