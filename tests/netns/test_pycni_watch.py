"""`pycni watch` repairs what disappears at once, sleeps otherwise, and leaves to a DEL what it deletes."""

from __future__ import annotations

import json
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.netns.attached_world import World
from tests.netns.test_pycni_people import as_nobody
from tests.netns.test_pycni_repair import talking
from tests.netns.watch_process import PATH, WatchProcess
from tests.support import scene
from tests.support.patience import LONG_S, patience, wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from cni.testing import Host
    from cni.testing.place import Place

pytestmark = pytest.mark.modes("warm")

EMPTY_NAT = "printf '*nat\\nCOMMIT\\n' | iptables-restore; printf '*nat\\nCOMMIT\\n' | ip6tables-restore"
RELOADS = {
    "nftables": ("nftables", "nft flush ruleset", "nft "),
    "iptables": ("iptables", EMPTY_NAT, "iptables-restor"),
}


@pytest.fixture
def world(host: Host, tmp_path: Path) -> World:
    return World(host, tmp_path)


def states(done: dict[str, Any]) -> list[tuple[str, str]]:
    return sorted((each["netns"].rpartition("/")[2], each["state"]) for each in done["attachments"])


SERVER = """
import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(100):
            self.request.sendall(data)
class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
with Server(("", 80), Echo) as server:
    print("ready", flush=True)
    server.serve_forever()
"""
# Has a connection open during the reload, and prints how long new connections fail after it.
CLIENT = """
import pathlib, socket, time
def echo(connection):
    connection.sendall(b"x")
    assert connection.recv(1) == b"x"
server = ("%s", 8080)
before = socket.create_connection(server, timeout=30)
echo(before)
print("ready", flush=True)
while not pathlib.Path("/run/reloaded").exists():
    time.sleep(0.005)
start = time.monotonic()
while time.monotonic() < start + 100:
    try:
        with socket.create_connection(server, timeout=0.1) as new:
            echo(new)
            break
    except OSError:
        time.sleep(0.005)
print(time.monotonic() - start, flush=True)
echo(before)
print("whole")
"""


@contextmanager
def running(place: Place, script: str) -> Iterator[subprocess.Popen[str]]:
    """Run a script that prints when it is ready."""
    process = place.popen(["python3", "-c", script])
    try:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("backend", "reload", "program"), RELOADS.values(), ids=RELOADS)
def test_a_reload_of_the_firewall_costs_containers_less_than_a_second(
    host: Host, tmp_path: Path, backend: str, reload: str, program: str
) -> None:
    world = World(host, tmp_path, backend)
    world.attach("c1", (8080, "tcp"))
    address = world.attach("c2")["ips"][0]["address"].split("/")[0]
    before, outside = world.rules(), host.outside
    client = CLIENT % outside.host_address
    with (
        running(world.sandboxes["c1"].place, SERVER),
        running(outside.sandbox.place, client) as asking,
        WatchProcess(world) as watch,
    ):
        # What a repair by hand takes on this machine now.
        started = time.monotonic()
        world.ok("repair")
        by_hand_s = time.monotonic() - started
        with talking(world, "c1", "c2", address):
            host.run(["sh", "-c", f"{reload}; touch /run/reloaded"])
            told, _ = asking.communicate(timeout=LONG_S)
        cost_s, whole = told.split()
        assert whole == "whole"
        assert float(cost_s) < max(patience(1), 3 * by_hand_s)
        done = watch.next()
        assert done["event"].startswith(program)
        assert {state for _, state in states(done)} == {"repaired"}
        while world.rules() != before:
            watch.next()
        assert watch.end() == (0, "")


LOSSES: dict[str, tuple[str, str]] = {
    "bridge": ("ip link del web0", "link web0 was deleted"),
    "bridge down": ("ip link set web0 down", "link web0 was set down"),
    "gateway's address": ("ip addr del 10.9.0.1/24 dev web0", "address 10.9.0.1 of web0 was deleted"),
    "port of the bridge": ("ip link set HOST nomaster", "link HOST was taken from its bridge"),
    "port down": ("ip link set HOST down", "link HOST was set down"),
    "forwarding": ("sysctl -qw net.ipv4.ip_forward=0", "forwarding was switched off"),
    "elements": ("nft flush map ip pycni ports", "nft (process "),
    "a rule": ("nft flush chain ip pycni postrouting", "nft (process "),
}


def test_what_disappears_is_repaired_and_named(world: World) -> None:
    host_end = world.attach("c1", (8080, "tcp"))["interfaces"][1]["name"]
    with WatchProcess(world) as watch:
        assert (watch.first["event"], watch.first["checked"]) == ("the watch has started", 1)
        assert watch.first["attachments"] == []
        for command, event in LOSSES.values():
            world.host.run(command.replace("HOST", host_end).split())
            done = watch.next()
            assert done["event"].startswith(event.replace("HOST", host_end)), done
            assert states(done) == [("c1", "repaired")], done
            assert world.check("c1")[0] == 0
        assert watch.is_silent()


def test_what_is_missing_at_the_start_is_repaired(world: World) -> None:
    world.attach("c1", (8080, "tcp"))
    before = world.rules()
    world.host.run(["nft", "flush", "ruleset"])
    with WatchProcess(world) as watch:
        assert states(watch.first) == [("c1", "repaired")]
        assert world.rules() == before


def test_nothing_wakes_it_while_nothing_happens(world: World) -> None:
    world.attach("c1", (8080, "tcp"))
    with WatchProcess(world) as watch:
        # A wait without a limit ends only by what is announced.
        watch.settle(quiet_s=2)
        assert watch.is_waiting_for_ever()


def test_another_program_s_rules_and_links_are_none_of_its_business(world: World) -> None:
    world.attach("c1", (8080, "tcp"))
    # A call of a plugin would fail, and be reported.
    with WatchProcess(world, CNI_PATH=f"/run/bin:{world.host.bindir}") as watch:
        world.host.run(["mkdir", "/run/bin"])
        for name in (scene.INTERFACE, scene.PORTS):
            world.host.run(
                ["cp", "/dev/stdin", f"/run/bin/{name}"], "#!/bin/sh\necho called >> /run/called\n"
            )
            world.host.run(["chmod", "755", f"/run/bin/{name}"])
        foreign = "add table ip x; add chain ip x y; add rule ip x y accept; delete table ip x"
        world.host.run(["nft", foreign])
        world.host.run(["ip", "link", "add", "x0", "type", "bridge"])
        world.host.run(["ip", "addr", "add", "192.0.2.9/24", "dev", "x0"])
        world.host.run(["ip", "link", "del", "x0"])
        watch.settle()
        assert watch.is_silent()
        assert world.host.run(["sh", "-c", "cat /run/called 2>/dev/null || true"]) == ""


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_a_del_is_left_alone(host: Host, tmp_path: Path, backend: str) -> None:
    world = World(host, tmp_path, backend)
    world.attach("c1", (8080, "tcp"))
    before = world.rules()
    world.attach("c2", (8081, "tcp"))
    with WatchProcess(world) as watch:
        world.ok("del", "web", "/run/netns/c2")
        watch.settle()
        assert watch.is_silent()
        assert world.rules() == before


def test_a_slow_del_wins_over_a_repair(world: World) -> None:
    world.attach("c1", (8080, "tcp"))
    before = world.rules()
    world.attach("c2", (8081, "tcp"))
    # The rules of the port go first. The DEL of the interface ends when the watch has repaired them.
    wrapper, real = f"/run/bin/{scene.INTERFACE}", world.host.bindir / scene.INTERFACE
    script = f"""#!/bin/sh
[ "$CNI_COMMAND" = DEL ] && while [ ! -e /run/repaired ]; do sleep 0.02; done
exec {real}
"""
    world.host.run(["mkdir", "/run/bin"])
    world.host.run(["cp", "/dev/stdin", wrapper], script)
    world.host.run(["chmod", "755", wrapper])
    env = {"PATH": PATH, "CNI_PATH": f"/run/bin:{world.host.bindir}"}
    with WatchProcess(world) as watch:
        slow = world.host.place.popen([world.command, "del", "web", "/run/netns/c2"], env=env)
        done = watch.next()
        assert states(done) == [("c2", "repaired")]
        assert "published 8081/tcp" in str(done)
        world.host.run(["touch", "/run/repaired"])
        assert slow.communicate() == ("", "")
        wait_until(lambda: world.rules() == before)
        assert world.host.run(["find", "/run/pycni/hostports", "-name", "*8081*"]) == ""


def test_a_burst_is_one_event(world: World) -> None:
    world.attach("c1", (8080, "tcp"))
    rules = "".join(f"add rule ip x y ip saddr 198.51.100.{number % 250} accept\n" for number in range(3000))
    world.host.run(["nft", "-f", "-"], f"add table ip x\nadd chain ip x y\n{rules}")
    with WatchProcess(world) as watch:
        world.host.run(["nft", "flush", "ruleset"])
        assert states(watch.next()) == [("c1", "repaired")]
        world.host.run(["ip", "addr", "del", "10.9.0.1/24", "dev", "web0"])
        # The next line is about the next event.
        assert "web0 was deleted" in watch.next()["event"]


def test_dropped_announcements_cost_a_look_at_everything(world: World) -> None:
    world.attach("c1", (8080, "tcp"))
    before = world.rules()
    # More than fits into the buffer of a process that does not read.
    many = ", ".join(f"10.{number >> 8}.{number & 255}.1" for number in range(30_000))
    script = f"add table ip x\nadd set ip x y {{ type ipv4_addr; }}\nadd element ip x y {{ {many} }}\n"
    with WatchProcess(world) as watch:
        watch.settle(quiet_s=0.3)
        watch.send(signal.SIGSTOP)
        world.host.run(["nft", "-f", "-"], script)
        world.host.run(["nft", "flush", "ruleset"])
        watch.send(signal.SIGCONT)
        done = watch.next()
        assert done["event"].startswith("the kernel dropped announcements")
        assert states(done) == [("c1", "repaired")]
        assert world.rules() == before


def test_it_backs_off_from_a_program_that_deletes_again_and_again(world: World) -> None:
    world.attach("c1")
    before = world.rules()
    loop = "while [ -e /run/fight ]; do nft flush chain ip pycni postrouting 2>/dev/null; sleep 0.05; done"
    world.host.run(["touch", "/run/fight"])
    with WatchProcess(world) as watch:
        other = world.host.place.popen(["timeout", "100", "sh", "-c", loop])
        rounds = [watch.next()]
        while not rounds[-1]["pause"]:
            rounds.append(watch.next())
        assert len(rounds) > 1
        world.host.run(["rm", "/run/fight"])
        other.communicate()
        # After the pause the last loss is repaired, too.
        wait_until(lambda: world.rules() == before)
        assert watch.end() == (0, "")


def test_a_failure_is_reported_once(world: World) -> None:
    world.attach("c1")
    world.attach("c2")
    with WatchProcess(world) as watch:
        world.sandboxes["c2"].run(["ip", "link", "del", "eth0"])
        done = watch.next()
        assert states(done) == [("c2", "failed")]
        assert "the veth pair of eth0 in /run/netns/c2 is gone" in done["attachments"][0]["problems"][0]
        world.host.run(["ip", "addr", "del", "10.9.0.1/24", "dev", "web0"])
        assert states(watch.next()) == [("c1", "repaired")]


def test_one_network_is_watched(world: World) -> None:
    ipam = {"type": scene.IPAM, "subnet": "10.8.0.0/24"}
    world.configure("other", world.bridge | {"bridge": "other0", "ipam": ipam})
    world.attach("c1")
    world.attach("c1", network="other", ifname="net1")
    with WatchProcess(world, "--network", "other") as watch:
        assert watch.first["checked"] == 1
        world.host.run(["ip", "addr", "del", "10.9.0.1/24", "dev", "web0"])
        world.host.run(["ip", "link", "del", "other0"])
        done = watch.next()
        assert done["event"].startswith("link other0 was deleted")
        assert [each["network"] for each in done["attachments"]] == ["other"]
    assert world.check("c1")[0] == 104


def test_a_dry_run_prints_and_changes_nothing(world: World) -> None:
    world.attach("c1", (8080, "tcp"))
    with WatchProcess(world, "--dry-run") as watch:
        world.host.run(["nft", "flush", "ruleset"])
        done = watch.next()
        assert states(done) == [("c1", "differs")]
        assert done["attachments"][0]["problems"]
        assert world.host.run(["nft", "list", "ruleset"]) == ""
        # It repairs nothing, and may run beside another one.
        with WatchProcess(world) as other:
            assert states(other.first) == [("c1", "repaired")]
            assert other.end(signal.SIGINT) == (0, "")
        assert watch.end(signal.SIGINT) == (0, "")


def test_people_read_lines(world: World) -> None:
    world.attach("c1", (8080, "tcp"))
    process = world.host.place.popen([world.command, "watch"], env={"PATH": PATH})
    assert process.stdout
    assert process.stdout.readline().endswith("  watching 1 attachment\n")
    world.host.run(["ip", "addr", "del", "10.9.0.1/24", "dev", "web0"])
    lines = [process.stdout.readline() for _ in range(3)]
    assert "  address 10.9.0.1 of web0 was deleted  (" in lines[0]
    assert lines[1].split() == ["web", lines[1].split()[1], "eth0", "/run/netns/c1", "repaired"]
    assert "        bridge: web0: gave it 10.9.0.1/24" in lines[2]
    second = world.run("watch")
    assert (second.returncode, second.stdout) == (1, "")
    assert second.stderr == (
        "pycni: another pycni watch repairs on this host"
        f" (it is held by process {process.pid} (pycni). Stop it first, or use --dry-run.)\n"
    )
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0


def test_wrong_calls_are_refused(world: World) -> None:
    done = as_nobody(world, "watch")
    assert (done.returncode, done.stdout) == (1, "")
    assert "operation not permitted for user 65534" in done.stderr
    done = world.run("watch", "--format", "yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert 'unknown format "yaml": use "json"' in done.stderr
    done = world.run("watch", "--network", "nowhere", "--format", "json")
    assert done.returncode == 1
    assert 'no net configuration with name "nowhere"' in json.loads(done.stdout)["msg"]
