"""The test library itself: hosts are apart from the machine, and snapshots see what plugins change."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni.errors import Code
from cni.testing import Host, Sandbox, make_bindir
from cni.testing.place import CommandError

if TYPE_CHECKING:
    from cni.testing import Snapshot


class OddError(Exception):
    """An exception that pickles but does not come back."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


def _connect(host: Host) -> tuple[Sandbox, str]:
    """Link a sandbox to the host by hand, v4 and v6."""
    sandbox = host.sandbox("c1")
    host.run(["ip", "link", "add", "veth1", "type", "veth", "peer", "name", "eth0", "netns", "c1"])
    for inside, link, number in ((host, "veth1", 1), (sandbox, "eth0", 2)):
        inside.run(["ip", "link", "set", link, "up"])
        inside.run(["ip", "addr", "add", f"10.9.0.{number}/24", "dev", link])
        inside.run(["ip", "addr", "add", f"fd09::{number}/64", "dev", link, "nodad"])
    return sandbox, "10.9.0.2"


def test_a_host_shows_nothing_of_the_machine(host: Host) -> None:
    assert host.links() == ["lo"]
    assert host.run(["ls", "/run"]).split() == ["netns"]
    assert host.run(["ls", "/var/lib/cni"]) == ""


def test_a_function_runs_inside_and_its_result_comes_back(host: Host) -> None:
    inside = host.call(os.readlink, "/proc/self/ns/net")
    assert inside == str(Path(f"/proc/{host.pid}/ns/net").readlink())
    assert inside != str(Path("/proc/self/ns/net").readlink())


def test_an_exception_inside_is_raised_outside(host: Host) -> None:
    with pytest.raises(FileNotFoundError, match="/nowhere"):
        host.call(os.stat, "/nowhere")


def test_an_exception_that_does_not_pickle_is_reported(host: Host) -> None:
    def fail() -> None:
        raise OddError("this", "that")

    with pytest.raises(RuntimeError, match="this and that"):
        host.call(fail)


def test_a_command_that_fails_shows_what_it_said(host: Host) -> None:
    with pytest.raises(CommandError, match="does not exist"):
        host.run(["ip", "link", "show", "dev", "nothere"])


def test_a_sandbox_is_a_namespace_of_its_own(host: Host) -> None:
    sandbox = host.sandbox("c1")
    assert sandbox.call(os.readlink, "/proc/self/ns/net") != host.call(os.readlink, "/proc/self/ns/net")
    assert sandbox.run(["ls", "/run/netns"]).split() == ["c1"]


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize(("address", "seen"), [("10.9.0.2", "10.9.0.1"), ("fd09::2", "fd09::1")])
def test_a_server_tells_the_address_it_sees(host: Host, protocol: str, address: str, seen: str) -> None:
    sandbox, _ = _connect(host)
    with sandbox.serve(80, protocol):
        assert host.dial(address, 80, protocol).address == seen
    assert not host.reaches(address, 80, protocol)


def test_the_outside_is_reached_in_both_families(host: Host) -> None:
    outside = host.outside
    with outside.sandbox.serve(80):
        assert host.dial(outside.address, 80).address == outside.host_address
        assert host.dial(outside.address6, 80).address == outside.host_address6


CHANGES = {
    "a link that goes up": "ip link set eth0 up",
    "links": "ip link add veth8 type veth peer name veth9",
    "addresses": "ip addr add 10.8.0.1/24 dev lo",
    "routes": "ip route add unreachable 10.7.0.0/24",
    "a sandbox's addresses": "ip -n c1 addr add 10.8.0.1/24 dev lo",
    "iptables rules": "iptables -A FORWARD -s 10.6.0.0/24 -j DROP",
    "ip6tables chains": "ip6tables -t nat -N MINE",
    "nftables tables": "nft add table inet mine",
    "files of a pool": "mkdir -p /var/lib/cni/networks/net1; echo x > /var/lib/cni/networks/net1/10.1.0.2",
    "files of a boot": "echo x > /run/x",
}


def _take_twice(host: Host, change: str) -> tuple[Snapshot, Snapshot]:
    host.sandbox("c1")
    host.run(["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1"])
    before = host.snapshot()
    host.run(["sh", "-c", change])
    return before, host.snapshot()


@pytest.mark.parametrize("what", CHANGES)
def test_a_snapshot_sees(host: Host, what: str) -> None:
    before, after = _take_twice(host, CHANGES[what])
    assert before.differences(after)


PASSING = {
    "tables that iptables makes by looking": "iptables -t nat -S; ip6tables -t nat -S",
    "a rule that came and went": "iptables -A FORWARD -j DROP; iptables -D FORWARD -j DROP",
    "lock files": "mkdir /var/lib/cni/networks; : > /var/lib/cni/networks/lock; : > /run/x.lock",
}


@pytest.mark.parametrize("what", PASSING)
def test_a_snapshot_is_not_changed_by(host: Host, what: str) -> None:
    before, after = _take_twice(host, PASSING[what])
    assert before.differences(after) == []


def test_an_unknown_plugin_name_is_an_error_object(host: Host, tmp_path: Path) -> None:
    bindir = make_bindir(tmp_path, {"sample": "cni_sample"})
    (bindir / "sample").rename(bindir / "unheard-of")
    answer = host.plugin("unheard-of", "VERSION", {}, bindir=bindir)
    assert answer.code == Code.IO_FAILURE
    assert '"unheard-of"' in answer.msg
    assert "sample" in answer.json["details"]
