"""Every network in conf/ does what conf/README.md says of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.command import Command

if TYPE_CHECKING:
    from cni.testing import Host, Sandbox

pytestmark = pytest.mark.modes("warm")

CONF = Path(__file__).parents[2] / "conf"
PORTS = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}


class Network:
    """A file of conf/ as the only network of a host, and the command that attaches to it."""

    def __init__(self, host: Host, file: str, folder: Path) -> None:
        self.host = host
        self.name = json.loads((CONF / file).read_text())["name"]
        self._command = Command(folder, host.bindir)
        host.run(["mkdir", "-p", "/etc/cni/net.d"])
        host.call(shutil.copy, CONF / file, "/etc/cni/net.d")

    def pycni(self, verb: str, sandbox: Sandbox, **capabilities: Any) -> dict[str, Any]:
        env = {"CAP_ARGS": json.dumps(capabilities), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        done = self._command.run(self.host.place, verb, self.name, sandbox.path, env=env)
        result: dict[str, Any] = json.loads(done.stdout or "{}")
        return result

    def add(self, sandbox: Sandbox, **capabilities: Any) -> list[str]:
        """Attach a sandbox and give its addresses."""
        result = self.pycni("add", sandbox, **capabilities)
        self.pycni("check", sandbox, **capabilities)
        return [ip["address"].split("/")[0] for ip in result.get("ips", [])]


def test_each_file_has_a_line_in_the_readme() -> None:
    told = (CONF / "README.md").read_text()
    files = sorted(path.name for path in CONF.glob("*.conflist"))
    assert files
    assert [name for name in files if f"| `{name}` |" not in told] == []


@pytest.mark.parametrize("file", ["10-bridge.conflist", "20-dual-stack.conflist", "87-podman.conflist"])
def test_a_network_with_a_way_out(host: Host, tmp_path: Path, file: str) -> None:
    network = Network(host, file, tmp_path)
    outside = host.outside
    # What containers share, the bridge and the base rules, stays after the first.
    web, other = host.sandbox("web"), host.sandbox("other")
    network.add(web)
    network.pycni("del", web)
    before = host.snapshot()
    addresses = network.add(web, **PORTS)
    network.add(other)
    outer = {4: (outside.address, outside.host_address), 6: (outside.address6, outside.host_address6)}
    with web.serve(80):
        for address in addresses:
            target, host_address = outer[6 if ":" in address else 4]
            assert other.reaches(address, 80, timeout_s=10)
            assert host.reaches(address, 80, timeout_s=10)
            assert outside.sandbox.dial(host_address, 8080).address == target
            assert other.reaches(host_address, 8080, timeout_s=10)
            assert web.reaches(host_address, 8080, timeout_s=10)
            with outside.sandbox.serve(7):
                assert web.dial(target, 7).address == host_address
    for sandbox in (web, other):
        network.pycni("del", sandbox)
        network.pycni("del", sandbox)
    assert host.snapshot() == before


def test_the_internal_network_leads_nowhere(host: Host, tmp_path: Path) -> None:
    network = Network(host, "30-internal.conflist", tmp_path)
    outside = host.outside
    one, two = host.sandbox("one"), host.sandbox("two")
    (address,) = network.add(one)
    network.add(two)
    with one.serve(80), outside.sandbox.serve(7):
        assert two.reaches(address, 80, timeout_s=10)
        assert not one.reaches(outside.address, 7)
        assert not one.reaches(outside.host_address, 7)
        assert not host.reaches(address, 80)
    assert one.json(["ip", "-j", "route", "show", "default"]) == []


def test_the_layer_2_network_joins_what_brings_its_own_addresses(host: Host, tmp_path: Path) -> None:
    network = Network(host, "40-layer2.conflist", tmp_path)
    one, two = host.sandbox("one"), host.sandbox("two")
    assert network.add(one, mac="02:00:00:00:00:11") == []
    assert network.add(two) == []
    assert one.json(["ip", "-j", "link", "show", "eth0"])[0]["address"] == "02:00:00:00:00:11"
    for sandbox, address in ((one, "198.51.100.1/24"), (two, "198.51.100.2/24")):
        sandbox.run(["ip", "addr", "add", address, "dev", "eth0"])
    with one.serve(80):
        assert two.reaches("198.51.100.1", 80, timeout_s=10)


def test_loopback_is_up(host: Host, tmp_path: Path) -> None:
    network = Network(host, "99-loopback.conflist", tmp_path)
    sandbox = host.sandbox("one")
    assert network.add(sandbox) == ["127.0.0.1", "::1"]
    with sandbox.serve(80):
        assert sandbox.reaches("127.0.0.1", 80, timeout_s=10)
        assert sandbox.reaches("::1", 80, timeout_s=10)
