"""`pycni repair` restores objects that were flushed or deleted, and interrupts nothing that works."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.netns.attached_world import BACKENDS, World
from tests.support import scene

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")

NAMES = ("c1", "c2", "c3", "c4", "c5")
GATEWAY, GATEWAY6 = "10.9.0.1", "fd09::1"

FLUSHES = {
    "iptables rules": ("iptables", "iptables -t nat -F; ip6tables -t nat -F"),
    "iptables rules and chains": (
        "iptables",
        "iptables -t nat -F; iptables -t nat -X; ip6tables -t nat -F; ip6tables -t nat -X",
    ),
    "all of nftables": ("nftables", "nft flush ruleset"),
    "rules of our table": ("nftables", "nft flush table ip pycni; nft flush table ip6 pycni"),
    "elements": ("nftables", "nft flush map ip pycni ports; nft flush set ip pycni leaving-10.9.0.0/24"),
    "a chain with its hook": (
        "nftables",
        "nft flush chain ip pycni postrouting; nft delete chain ip pycni postrouting",
    ),
}

SERVER = """
import socket
server = socket.create_server(("::", 7), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
peer, _ = server.accept()
while line := peer.recv(100):
    peer.sendall(line)
"""
CLIENT = """
import pathlib, socket, time
client = socket.create_connection(("%s", 7), timeout=30)
print("ready", flush=True)
# These are still to come when it is told to stop.
rest = 6
while rest:
    client.sendall(b"x")
    assert client.recv(100) == b"x"
    rest -= pathlib.Path("/run/stop").exists()
    time.sleep(0.02)
print("whole")
"""


@contextmanager
def talking(world: World, one: str, other: str, address: str) -> Iterator[None]:
    """Let one container talk to another over one connection all the while; nothing may be lost of it."""
    server = world.sandboxes[other].place.popen(["python3", "-c", SERVER])
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    client = world.sandboxes[one].place.popen(["python3", "-c", CLIENT % address])
    assert client.stdout is not None
    try:
        assert client.stdout.readline() == "ready\n"
        yield
        world.host.run(["touch", "/run/stop"])
        assert client.communicate(timeout=60) == ("whole\n", "")
    finally:
        client.kill()
        server.kill()
        client.communicate()
        server.communicate()


def attach_all(world: World) -> dict[str, str]:
    """Attach five containers, each with a published port, and give their addresses."""
    found = {}
    for number, name in enumerate(NAMES):
        result = world.attach(name, (8080 + number, "tcp"))
        found[name] = result["ips"][0]["address"].split("/")[0]
    return found


def repaired(world: World, *options: str, status: int = 0, **env: str) -> list[dict[str, Any]]:
    done = world.run("repair", "--json", *options, **env)
    assert done.returncode == status, done.stdout + done.stderr
    found = json.loads(done.stdout)["attachments"]
    assert isinstance(found, list)
    return found


def states(told: list[dict[str, Any]]) -> list[str]:
    return [each["state"] for each in told]


def assert_all_answer(world: World) -> None:
    """See that every port answers from outside, and that containers get out of their network."""
    outside = world.host.outside
    for number, name in enumerate(NAMES):
        with world.sandboxes[name].serve(80):
            seen = outside.sandbox.dial(outside.host_address, 8080 + number, timeout_s=10)
            assert seen.address == outside.address
    with outside.sandbox.serve(9):
        seen = world.sandboxes["c1"].dial(outside.address, 9, timeout_s=10)
        assert seen.address == outside.host_address


@pytest.mark.parametrize(("backend", "flush"), FLUSHES.values(), ids=FLUSHES)
def test_a_flushed_firewall_is_as_before_and_connections_go_on(
    host: Host, tmp_path: Path, backend: str, flush: str
) -> None:
    world = World(host, tmp_path, backend)
    addresses = attach_all(world)
    before = world.rules()
    with talking(world, "c1", "c2", addresses["c2"]):
        host.run(["sh", "-c", flush])
        assert states(repaired(world, "--dry-run")) == ["differs"] * 5
        told = repaired(world)
        # The first repair restores the shared objects too, which may be all that was missing.
        assert states(told)[0] == "repaired"
        assert set(states(told)) <= {"repaired", "well"}
        assert all(each["problems"] == [] for each in told)
    assert world.rules() == before
    assert states(repaired(world, "--dry-run")) == ["well"] * 5
    assert_all_answer(world)


def inside(world: World) -> list[str]:
    """Return the containers' own side: links, addresses, routes."""
    taken = world.host.snapshot()
    lines = [*taken.links, *taken.addresses, *taken.routes]
    return [each for each in lines if each.startswith(tuple(f"{name}:" for name in NAMES))]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_deleted_bridge_is_made_again(host: Host, tmp_path: Path, backend: str) -> None:
    world = World(host, tmp_path, backend)
    attach_all(world)
    untouched = inside(world)
    host.run(["ip", "link", "del", "web0"])
    code, told = world.check("c1")
    assert code == 104
    assert "Interface web0 of the host does not exist" in told
    assert states(repaired(world)) == ["repaired"] * 5
    assert inside(world) == untouched
    with host.serve(7000):
        for name in NAMES:
            for address in (GATEWAY, GATEWAY6):
                assert world.sandboxes[name].reaches(address, 7000, timeout_s=10)
    assert states(repaired(world, "--dry-run")) == ["well"] * 5
    assert_all_answer(world)


DAMAGES = {
    "port off the bridge": "ip link set HOST nomaster",
    "port down": "ip link set HOST down",
    "hairpin": "bridge link set dev HOST hairpin off",
    "learning": "bridge link set dev HOST learning off",
    "alias": "ip link set HOST alias x",
    "MTU": "ip link set HOST mtu 1300",
    "bridge down": "ip link set web0 down",
    "gateway's address": "ip addr del 10.9.0.1/24 dev web0",
    "forwarding": "sysctl -w net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0",
    "localhost": "sysctl -w net.ipv4.conf.web0.route_localnet=0",
    "spoof check": "nft flush table bridge nat",
    "lease": "rm /var/lib/cni/networks/web/10.9.0.2",
    "claims": "sh -c rm${IFS}-r${IFS}/run/pycni/hostports/tcp-*",
    "container's address": "ip -n c1 addr del 10.9.0.2/24 dev eth0",
    "container's route": "ip -n c1 route del default",
    "container's link down": "ip -n c1 link set eth0 down",
}


def test_each_damage_is_repaired(host: Host, tmp_path: Path) -> None:
    """One after the other: after each repair the host is as before the damage."""
    world = World(host, tmp_path, macspoofchk=True, mtu=1400)
    host_end = world.attach("c1", (8080, "tcp"))["interfaces"][1]["name"]
    before = host.snapshot()
    for name, damage in DAMAGES.items():
        host.run(damage.replace("HOST", host_end).split(maxsplit=2 if damage.startswith("sh") else -1))
        assert world.check("c1")[0] == 104, name
        [told] = repaired(world, "--dry-run")
        assert (told["state"], told["repaired"]) == ("differs", []), name
        assert told["problems"], name
        [told] = repaired(world)
        assert (told["state"], told["problems"]) == ("repaired", []), (name, told)
        assert world.check("c1")[0] == 0, name
        left = [each for each in before.differences(host.snapshot()) if "fe80" not in each]
        assert left == [], name
        with world.sandboxes["c1"].serve(80):
            assert host.reaches("127.0.0.1", 8080, timeout_s=10), name


def test_a_dry_run_changes_nothing(host: Host, tmp_path: Path) -> None:
    world = World(host, tmp_path)
    world.attach("c1", (8080, "tcp"))
    host.run(["nft", "flush", "ruleset"])
    before = host.snapshot(exact=True)
    lines = world.ok("repair", "--dry-run").splitlines()
    assert before.differences(host.snapshot(exact=True)) == []
    assert lines[0].split()[0] == "web"
    assert lines[0].endswith("differs")
    assert any(line.strip().startswith("portmap: ") for line in lines)


def test_repair_reports_what_it_cannot_restore_and_restores_the_rest(host: Host, tmp_path: Path) -> None:
    world = World(host, tmp_path)
    attach_all(world)
    # c2's end is gone, c3's lease belongs to another container by now, c4 has no namespace any more.
    world.sandboxes["c2"].run(["ip", "link", "del", "eth0"])
    host.run(["sh", "-c", "printf 'other\\r\\neth0' > /var/lib/cni/networks/web/10.9.0.4"])
    world.sandboxes["c4"].delete()
    host.run(["nft", "flush", "ruleset"])
    told = {each["netns"].rpartition("/")[2]: each for each in repaired(world, status=1)}
    assert {name: each["state"] for name, each in told.items()} == {
        "c1": "repaired", "c2": "failed", "c3": "failed", "c4": "gone", "c5": "repaired",
    }  # fmt: skip
    assert "the veth pair of eth0 in /run/netns/c2 is gone" in told["c2"]["problems"][0]
    assert "10.9.0.4" in told["c3"]["problems"][0]
    assert "held by container other" in told["c3"]["problems"][0]
    assert any("published 8082/tcp" in each for each in told["c3"]["repaired"])
    assert "10.9.0.5" not in host.run(["nft", "list", "ruleset"])


def test_a_port_that_another_container_has_by_now_stays_its_own(host: Host, tmp_path: Path) -> None:
    world = World(host, tmp_path)
    world.attach("c1", (8080, "tcp"))
    host.run(["sh", "-c", "nft flush ruleset; rm -r /run/pycni/hostports"])
    world.attach("c2", (8080, "tcp"))
    told = {each["netns"]: each for each in repaired(world, status=1)}
    assert told["/run/netns/c2"]["state"] == "well"
    assert told["/run/netns/c1"]["state"] == "failed"
    assert "host port 8080/tcp is already published" in told["/run/netns/c1"]["problems"][0]
    with world.sandboxes["c2"].serve(80):
        assert host.reaches("127.0.0.1", 8080, timeout_s=10)


def test_only_the_named_network_is_repaired(host: Host, tmp_path: Path) -> None:
    world = World(host, tmp_path)
    world.attach("c1")
    world.configure(
        "other", world.bridge | {"bridge": "other0", "ipam": {"type": scene.IPAM, "subnet": "10.8.0.0/24"}}
    )
    world.attach("c1", network="other", ifname="net1")
    host.run(["nft", "flush", "ruleset"])
    assert [each["network"] for each in repaired(world, "other")] == ["other"]
    assert world.check("c1")[0] == 104
    done = world.run("repair", "nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert 'no net configuration with name "nowhere"' in done.stderr


def test_a_network_older_than_check_is_repaired(host: Host, tmp_path: Path) -> None:
    world = World(host, tmp_path)
    world.configure("web", world.bridge, version="0.3.1")
    world.attach("c1")
    before = world.rules()
    host.run(["sh", "-c", "nft flush ruleset; ip link del web0"])
    assert states(repaired(world)) == ["repaired"]
    assert world.rules() == before
    with host.serve(7000):
        assert world.sandboxes["c1"].reaches(GATEWAY, 7000, timeout_s=10)


def test_repair_undoes_itself_for_an_attachment_deleted_meanwhile(host: Host, tmp_path: Path) -> None:
    world = World(host, tmp_path)
    world.attach("c1", (8080, "tcp"))
    world.attach("c2")
    # A runtime's DEL between the repair and its end: the cached result goes while the plugins run.
    wrapper, real = f"/run/bin/{scene.PORTS}", host.bindir / scene.PORTS
    script = f"#!/bin/sh\n[ $CNI_COMMAND = PYCNI_CHECK ] && rm -f /var/lib/cni/results/*\nexec {real}\n"
    host.run(["mkdir", "/run/bin"])
    host.run(["cp", "/dev/stdin", wrapper], script)
    host.run(["chmod", "755", wrapper])
    host.run(["nft", "flush", "ruleset"])
    told = repaired(world, CNI_PATH=f"/run/bin:{host.bindir}")
    assert states(told)[0] == "gone"
    left = host.run(["nft", "list", "ruleset"])
    assert "10.9.0.2" not in left
    assert host.run(["find", "/run/pycni/hostports", "-name", "tcp-*"]) == ""
