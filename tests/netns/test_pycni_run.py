"""`pycni run`: what COMMAND sees, how it ends, and that nothing of it remains."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.netns.run_world import PYTHON, RunWorld, processes
from tests.support import scene
from tests.support.patience import LONG_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")

# Prints all that differs in the namespaces of COMMAND.
LOOK = """
import glob, json, os, socket, subprocess
shown = json.loads(subprocess.run(["ip", "-j", "addr"], capture_output=True).stdout)
print(json.dumps({
    "links": {each["ifname"]: [one["local"] for one in each["addr_info"] if one["scope"] == "global"]
              for each in shown},
    "up": [each["ifname"] for each in shown if "UP" in each["flags"]],
    # A kernel with bonding has a file there, too.
    "sys": sorted(each.name for each in os.scandir("/sys/class/net") if each.is_dir()),
    "resolv.conf": open("/etc/resolv.conf").read().splitlines()[1:],
    "hosts": open("/etc/hosts").read().splitlines()[1:],
    "host name": socket.gethostname(),
    "folder": os.getcwd(),
    "processes": len(glob.glob("/proc/[0-9]*")),
    "own": os.environ.get("OWN"), "given": os.environ.get("GIVEN"),
    "route": subprocess.run(["ip", "route", "get", "192.0.2.77"], capture_output=True, text=True).stdout,
    "address": open("/sys/class/net/eth0/address").read().strip() if len(shown) > 1 else "",
}))
"""
# COMMAND and the process that waits for it.
PROCESSES = 2


@pytest.fixture
def world(host: Host, tmp_path: Path) -> Iterator[RunWorld]:
    """Yield a host with the network "web"."""
    world = RunWorld(host, tmp_path)
    yield world
    world.close()


def look(world: RunWorld, *arguments: str, **env: str) -> Any:
    """Return what COMMAND sees."""
    return json.loads(world.ok("run", *arguments, "--", PYTHON, "-c", LOOK, **env))


def refused(world: RunWorld, *arguments: str) -> str:
    """Run a command, which pycni refuses. Return its line on stderr."""
    done = world.run("run", *arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (125, "", 1)
    return done.stderr


def test_command_has_a_place_of_its_own_and_leaves_nothing(world: RunWorld) -> None:
    world.ok("run", "--network", "web", "--", "true")
    before = world.host.snapshot()
    seen = look(
        world,
        *("--rm", "--network", "web", "--name", "box", "--hostname", "me", "-w", "/usr", "-e", "GIVEN=1"),
        *("--add-host", "db:192.0.2.7", "--add-host", "up:host-gateway"),
        *("--dns-search", "a.test", "--dns-option", "ndots:2", "--dns", "192.0.2.53"),
        OWN="2",
    )
    addresses = seen["links"]["eth0"]
    assert len(addresses) == 2
    assert seen["up"] == seen["sys"][::-1] == ["lo", "eth0"]
    assert seen["resolv.conf"] == ["nameserver 192.0.2.53", "search a.test", "options ndots:2"]
    own = [f"{address}\tbox me" for address in addresses]
    assert seen["hosts"][:4] == ["192.0.2.7\tdb", "10.9.0.1\tup", *own]
    assert [each for each in seen["hosts"] if "localhost" in each]
    assert (seen["host name"], seen["folder"], seen["processes"]) == ("me", "/usr", PROCESSES)
    assert (seen["own"], seen["given"]) == ("2", "1")
    assert world.remains(before) == []


def test_host_and_none_are_no_networks(world: RunWorld) -> None:
    before = world.host.snapshot()
    none, host = (
        look(world, "--network", "none"),
        look(world, "--network", "host", "--add-host", "a=192.0.2.1"),
    )
    assert (none["links"], none["up"]) == ({"lo": []}, ["lo"])
    assert set(host["links"]) == set(world.host.links())
    assert host["hosts"][0] == "192.0.2.1\ta"
    assert none["processes"] == host["processes"] == PROCESSES
    assert world.remains(before) == []


@pytest.mark.parametrize(
    ("command", "status", "reason"),
    [
        (("true",), 0, ""),
        (("sh", "-c", "exit 42"), 42, ""),
        (("sh", "-c", "kill -TERM $$"), 143, ""),
        (("sh", "-c", "kill -KILL $$"), 137, ""),
        (("/etc",), 126, "could not run /etc: permission denied"),
        (("nope",), 127, "could not run nope: no such file or directory"),
    ],
)
def test_the_exit_code_is_that_of_the_command(
    world: RunWorld, command: tuple[str, ...], status: int, reason: str
) -> None:
    done = world.run("run", "--network", "none", "--", *command)
    assert (done.returncode, reason in done.stderr, bool(done.stderr)) == (status, True, bool(reason))


def test_pycni_refuses_by_125(world: RunWorld) -> None:
    world.configure("bare", {**world.bridge, "bridge": "bare0"})
    world.configure("broken", world.bridge, {"type": "missing"})
    world.ok("run", "--network", "web", "--network", "bare", "true")
    before = world.host.snapshot()
    run = ("--", "true")
    for arguments, reason in (
        (("--nope", *run), "No such option: --nope"),
        (("--network", "web"), "Missing argument 'COMMAND'"),
        (("--network", "nope", *run), "network nope not found"),
        (("--network", "none", "-p", "1:1", *run), "--publish needs a network"),
        (("--network", "bare", "-p", "8080:80", *run), "no network of bare publishes ports"),
        (("--network", "web", "--alias", "a", *run), "no plugin of network web answers names"),
        (("--network", "web", "--network", "bare", "--ip", "10.9.0.7", *run), "which of the networks"),
        (("--network", "web", "--network", "web", *run), "already connected to network web"),
        (("--network", "web", "--ip", "10.1.2.3", *run), "10.1.2.3"),
        (("--network", "web", "--dns", "x", *run), 'invalid value for --dns: "x" is no IP address'),
        (("--network", "web", "--name", "a/b", *run), 'invalid value for --name: "a/b"'),
        (("--network", "web", "-w", "/nope", *run), "there is no folder /nope"),
        (("--network", "web", "--network", "broken", *run), "missing"),
    ):
        assert reason in refused(world, *arguments), arguments
    assert world.remains(before) == []


def test_streams_are_those_of_the_caller(world: RunWorld) -> None:
    script = "cat; echo problem >&2"
    call = world.start("--network", "none", "--", "sh", "-c", script, stdin="some\ntext\n")
    done = call.finish(LONG_S)
    assert (done.returncode, done.stdout, done.stderr) == (0, "some\ntext\n", "problem\n")


def test_signals_are_passed_on_once(world: RunWorld) -> None:
    names = ("INT", "TERM", "USR1", "WINCH")
    script = "; ".join(f'trap "echo {each} >> $LOG" {each}' for each in names)
    script += '; trap "exit 7" HUP; echo ready >> $LOG; while :; do sleep 0.02; done'
    log = world.folder / "log"
    call = world.started_until("--network", "none", "-e", f"LOG={log}", script=script)
    wait_until(log.exists)
    for name in names:
        os.kill(call.pid, signal.Signals[f"SIG{name}"])
        wait_until(lambda: log.read_text().endswith(f"{name}\n"))  # noqa: B023 - called at once
    assert world.end(call, signal.SIGHUP).returncode == 7
    assert log.read_text().split() == ["ready", *names]


def test_daemons_end_with_the_command(world: RunWorld) -> None:
    mark = f"PYCNI_MARK={world.folder.name}-{os.getpid()}"
    script = "setsid sh -c 'sleep 1000 & exec sleep 1000' & touch $0"
    world.ok("run", "--network", "web", "true")
    before = world.host.snapshot()
    world.ok("run", "--network", "web", "-e", mark, "--", "sh", "-c", script, str(world.folder / "x"))
    assert processes(mark) == []
    call = world.started_until("--network", "web", "-e", mark, script="setsid sleep 1000 & exec sleep 1000")
    wait_until(lambda: len(processes(mark)) == PROCESSES)
    assert world.end(call).returncode == 143
    assert processes(mark) == []
    assert world.remains(before) == []


def test_the_other_commands_know_the_container(world: RunWorld) -> None:
    world.ok("network", "create", "second")
    world.host.outside  # noqa: B018 - the first use creates it
    world.ok("run", "--network", "web", "--network", "second", "-p", "8080:80", "true")
    before = world.host.snapshot()
    serve = f'exec {PYTHON} -c "{SERVE}"'
    call = world.started_until("--network", "web", "-p", "8080:80", "--name", "box", script=serve)
    world.ok("check", "web", "box")
    [attached] = world.attachments()
    assert (attached["containerName"], attached["netnsState"]) == ("box", "alive")
    assert [each["hostPort"] for each in attached["ports"]] == [8080]
    world.ok("publish", "box", "8081:80")
    for port in (8080, 8081):
        asked = world.host.outside.sandbox.run(["bash", "-c", FETCH.format(f"192.0.2.1/{port}")])
        assert asked == "box\n"
    world.ok("network", "connect", "second", "box")
    assert sorted(each["ifname"] for each in world.attachments()) == ["eth0", "eth1"]
    world.ok("network", "disconnect", "web", "box")
    shown = world.host.run(["ip", "netns", "exec", "box", "sh", "-c", "echo /sys/class/net/*/"])
    assert shown.split() == ["/sys/class/net/eth1/", "/sys/class/net/lo/"]
    world.ok("network", "connect", "web", "box")
    assert world.end(call).returncode == 143
    assert world.attachments() == []
    assert world.remains(before) == []


SERVE = """
import socket
server = socket.create_server(('', 80))
while True:
    peer = server.accept()[0]
    peer.sendall(b'box\\n')
    peer.close()
"""
FETCH = "exec 3<>/dev/tcp/{} && cat <&3"


def test_each_network_has_its_options(world: RunWorld) -> None:
    world.ok("network", "create", "second")
    mac = "02:11:22:33:44:55"
    seen = look(world, "--network", f"web:ip=10.9.0.77,mac={mac}", "--network", "second:ip=10.89.0.9")
    assert "10.9.0.77" in seen["links"]["eth0"]
    assert seen["links"]["eth1"] == ["10.89.0.9"]
    assert (seen["address"], "dev eth0" in seen["route"]) == (mac, True)
    # The first network has the default route.
    seen = look(world, "--network", "second", "--network", "web")
    assert seen["links"]["eth0"] == ["10.89.0.10"]
    assert "dev eth0" in seen["route"]
    assert look(world, "--network", "second", "--ip", "10.89.0.9")["links"]["eth0"] == ["10.89.0.9"]


def test_a_taken_name_is_refused(world: RunWorld) -> None:
    run = ("--network", "web", "--name")
    call = world.started_until(*run, "box")
    world.sandboxes["c1"] = world.host.sandbox("c1")
    world.ok("add", "web", "c1", CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=pod")
    assert "taken by a container of another pycni run: it is held by process" in refused(
        world, *run, "box", "true"
    )
    assert "there is a network namespace /run/netns/c1" in refused(world, *run, "c1", "true")
    assert 'the name "pod" is taken by container cnitool-' in refused(world, *run, "pod", "true")
    assert len(world.attachments()) == 2
    # A process may use a namespace whose name was removed.
    process = world.sandboxes["c1"].place.popen(["sleep", "1000"])
    wait_until(lambda: b"sleep" in Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")[0])
    world.host.run(["ip", "netns", "delete", "c1"])
    assert 'the name "c1" is taken by container cnitool-' in refused(world, *run, "c1", "true")
    process.kill()
    process.communicate()
    world.end(call)
    world.ok("run", *run, "box", "true")


def test_one_of_many_gets_the_name(world: RunWorld) -> None:
    end = world.folder / "end"
    wait = f"until [ -e {end} ]; do sleep 0.02; done"
    calls = [world.start("--network", "web", "--name", "box", "--", "sh", "-c", wait) for _ in range(3)]
    wait_until(lambda: sum(each.has_ended() for each in calls) == 2)
    end.touch()
    assert sorted(each.finish(LONG_S).returncode for each in calls) == [0, 125, 125]
    assert world.attachments() == []


def test_a_missing_resolv_conf_is_an_error(world: RunWorld) -> None:
    script = "mkdir /run/etc && cp -a /etc/cni /run/etc/ && mount --rbind /run/etc /etc"
    world.host.run(["sh", "-ec", script])
    world.ok("run", "--network", "none", "true")
    assert "COMMAND cannot get a /etc/hosts of its own" in refused(world, "--network", "web", "true")
    assert world.attachments() == []


def test_options_complete_networks(world: RunWorld) -> None:
    def words(*line: str) -> list[str]:
        return [each.split("\t")[0] for each in world.ok("complete", "--", *line).splitlines()]

    assert words("run", "--network", "") == ["host", "none", "web"]
    assert words("run", "--network", "w") == ["web"]
    assert words("publish", "--network", "") == ["web"]
    assert "--network" in words("run", "--net")
    assert words("run", "--network", "web", "--name", "") == []
    assert words("run", "--network", "web", "--", "") == []


def test_its_help_says_that_it_is_no_container_runtime(world: RunWorld) -> None:
    assert "This is no container runtime." in world.ok("run", "--help")
    assert scene.INTERFACE not in world.ok("run", "--help").split()
