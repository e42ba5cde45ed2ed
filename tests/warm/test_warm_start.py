"""The first call that needs a server starts it. A call runs cold if the server cannot start."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni.state import executables
from cni.testing.place import BARE_ENV
from cni.warm import control
from tests.support import scene
from tests.support.patience import wait_until

if TYPE_CHECKING:
    from tests.warm.conftest import WarmHost

FOLDER = "/run/pycni/warm"


def is_cold(host: WarmHost) -> bool:
    """Return whether a call that works is no child of a server."""
    facts = host.facts()
    return int(facts["parent"]) not in host.servers()


def inside(host: WarmHost, path: str) -> Path:
    return Path(f"/proc/{host.pid}/root{path}")


def socket_of(host: WarmHost) -> str:
    return host.run([str(host.bindir / "odd"), "--warm-socket"]).strip()


def test_the_first_call_is_served_by_the_server_that_it_starts(warm_host: WarmHost) -> None:
    assert not is_cold(warm_host)
    assert warm_host.status()["requests"] == 1
    mode = inside(warm_host, socket_of(warm_host)).stat().st_mode
    assert mode & 0o777 == 0o600


def test_a_hundred_concurrent_calls_start_one_server(warm_host: WarmHost) -> None:
    script = f"""
        cd /run; export CNI_COMMAND=ADD CNI_NETNS=/run/n CNI_IFNAME=eth0 CNI_PATH={warm_host.bindir}
        for i in $(seq 100); do
            echo '{{"cniVersion": "1.0.0", "name": "n'$i'", "type": "{scene.IPAM}",
                "ipam": {{"type": "{scene.IPAM}", "subnet": "10.'$i'.0.0/24"}}}}' > conf$i
        done
        for i in $(seq 100); do
            (CNI_CONTAINERID=c$i {warm_host.bindir}/{scene.IPAM} < conf$i > out$i; echo $? > status$i) &
        done
        wait"""
    warm_host.run(["sh", "-c", script])
    for number in range(1, 101):
        answer = json.loads(inside(warm_host, f"/run/out{number}").read_text())
        assert answer["ips"][0]["address"] == f"10.{number}.0.2/24"
        assert inside(warm_host, f"/run/status{number}").read_text() == "0\n"
    assert len(warm_host.servers()) == 1
    assert warm_host.status()["requests"] == 100
    assert warm_host.log().count("listens at") == 1


def test_a_socket_without_a_listener_is_replaced(warm_host: WarmHost) -> None:
    warm_host.call(_leave_socket, socket_of(warm_host))
    assert not is_cold(warm_host)


def _leave_socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stale:
        stale.bind(path)


@pytest.mark.parametrize("command", ["touch {}", "ln -s /etc/hostname {}", "ln -s /nowhere {}"])
def test_a_file_in_place_of_the_socket_is_replaced(warm_host: WarmHost, command: str) -> None:
    warm_host.run(["sh", "-c", command.format(socket_of(warm_host))])
    assert not is_cold(warm_host)


def test_a_folder_in_place_of_the_socket_is_left_alone(warm_host: WarmHost) -> None:
    warm_host.run(["mkdir", socket_of(warm_host)])
    assert is_cold(warm_host)


OBSTACLES = {
    "read-only /run": "mount -o remount,ro /run",
    "a disk full of files": f"mount -t tmpfs -o nr_inodes=3,mode=700 tmpfs {FOLDER}; cd {FOLDER}; touch 1 2",
    "a folder of somebody else": f"chown 1000 {FOLDER}",
    "a folder open to others": f"chmod 755 {FOLDER}",
    "a link in place of the folder": f"mv {FOLDER} /run/other; ln -s /run/other {FOLDER}",
    "a file in place of the folder": f"rm -r {FOLDER}; touch {FOLDER}",
    "an upper folder of somebody else": "chown 1000 /run/pycni",
    "a file that switches it off": "touch /etc/cni/pycni/warm-off",
}


@pytest.mark.parametrize("what", OBSTACLES)
def test_without_a_folder_for_a_server_the_call_is_cold(warm_host: WarmHost, what: str) -> None:
    warm_host.run(["sh", "-c", OBSTACLES[what]])
    assert is_cold(warm_host)
    assert warm_host.servers() == []


def test_a_missing_run_folder_is_no_obstacle(warm_host: WarmHost) -> None:
    warm_host.run(["sh", "-c", "umount -l /run && mount -t tmpfs -o ro tmpfs /run"])
    assert is_cold(warm_host)


@pytest.mark.parametrize("value", ["off", "0"])
def test_a_variable_switches_warm_start_off(warm_host: WarmHost, value: str) -> None:
    facts = warm_host.facts(env={"PYCNI_WARM": value})
    assert warm_host.servers() == []
    assert "PYCNI_NAME" not in facts["environment"]


LIMITS = {
    "few descriptors": "ulimit -n 60",
    "little memory": "ulimit -v 2000000",
    "little time": "ulimit -t 100",
    "small files": "ulimit -f 100000",
}


@pytest.mark.parametrize("what", LIMITS)
def test_a_caller_with_limits_is_bound_by_them(warm_host: WarmHost, what: str) -> None:
    script = f"{LIMITS[what]}; exec {warm_host.bindir}/{scene.LOOPBACK}"
    out = warm_host.run(["sh", "-c", script], env=BARE_ENV | {"CNI_COMMAND": "VERSION"})
    assert "1.1.0" in json.loads(out)["supportedVersions"]
    assert warm_host.servers() == []


@pytest.mark.parametrize("closing", ["0<&-", "2>&-", "0<&- 2>&-"])
def test_descriptors_that_the_caller_has_closed_are_not_passed(warm_host: WarmHost, closing: str) -> None:
    env = BARE_ENV | {"CNI_COMMAND": "VERSION"}
    out = warm_host.run(["sh", "-c", f"exec {warm_host.bindir}/{scene.LOOPBACK} {closing}"], env=env)
    assert "1.1.0" in json.loads(out)["supportedVersions"]
    assert warm_host.status()["requests"] == 1


def test_a_full_disk_is_no_obstacle(warm_host: WarmHost) -> None:
    warm_host.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", FOLDER])
    warm_host.run(["sh", "-c", f"dd if=/dev/zero of={FOLDER}/all bs=4k 2>/dev/null || true"])
    assert not is_cold(warm_host)
    assert warm_host.odd().ok


def test_a_large_environment_is_cold(warm_host: WarmHost) -> None:
    large = {f"LARGE_{number}": "x" * 100_000 for number in range(2)}
    assert int(warm_host.facts(env=large)["parent"]) not in warm_host.servers()
    assert warm_host.odd(env={"LARGE": "x" * 100_000}).ok
    assert warm_host.status()["requests"] == 1


def test_builds_do_not_mix(warm_host: WarmHost, launcher: Path) -> None:
    warm_host.odd()
    tree = str(warm_host.bindir.parent)
    warm_host.run(["mkdir", "/run/new"])
    program = executables.launcher(launcher.read_bytes(), tree, "other")
    warm_host.call(executables.put, Path("/run/new"), [scene.LOOPBACK], program)
    warm_host.plugin(scene.LOOPBACK, "VERSION", "", bindir=Path("/run/new")).must()
    builds = {server.build: server.pid for server in warm_host.call(control.find)}
    assert set(builds) == {"test", "other"}
    # Even where one finds the socket of the other.
    new, old = socket_of(warm_host).replace("test", "other"), socket_of(warm_host)
    warm_host.call(os.kill, builds["other"], signal.SIGKILL)
    warm_host.run(["ln", "-f", old, new])
    answer = warm_host.plugin(scene.LOOPBACK, "VERSION", "", bindir=Path("/run/new"))
    assert answer.ok
    warm_host.await_log("refused a call: the request is for another build")


def test_a_stopped_server_and_workers_cost_a_bounded_wait(warm_host: WarmHost) -> None:
    """No passed descriptor keeps the caller's pipe open, and no worker runs the call later."""
    warm_host.odd()
    [server] = warm_host.call(control.find)
    pids = [server.pid, *control.children(server.pid)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    waited_s, facts = warm_host.waited_s(env={"PYCNI_WARM_ACCEPT_S": "1"})
    assert 0.9 < waited_s < 2
    assert int(facts["pid"]) not in pids
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: not is_cold(warm_host))
    assert warm_host.status()["requests"] == 2


def test_a_server_inherits_nothing_from_its_first_caller(warm_host: WarmHost) -> None:
    script = f"""
        trap '' TERM HUP; umask 077; cd /usr; ulimit -n 300; exec 4</etc/hostname 9</etc/hosts
        exec python3 -c "import os; os.dup2(4, 251, inheritable=True); os.nice(5)
os.sched_setaffinity(0, [0]); os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
os.execvp('ionice', ['ionice', '-c', '3', '{warm_host.bindir}/{scene.LOOPBACK}'])" """
    env = BARE_ENV | {"CNI_COMMAND": "VERSION", "SECRET": "x"}
    warm_host.run(["bash", "-c", script], env=env)
    [server] = warm_host.call(control.find)
    process = Path(f"/proc/{server.pid}")
    files = {int(each.name): str(each.readlink()) for each in (process / "fd").iterdir()}
    assert [files[number] for number in range(3)] == ["/dev/null"] * 3
    assert not [name for name in files.values() if name.startswith("/etc")]
    assert max(files) < 30
    assert b"SECRET" not in (process / "environ").read_bytes()
    assert str((process / "cwd").readlink()) == "/"
    lines = (process / "status").read_text().splitlines()
    status = dict(line.split(":\t") for line in lines if ":\t" in line)
    assert status["Umask"] == "0022"
    assert status["Threads"] == "1"
    assert int(status["SigBlk"], 16) == 0
    assert int(status["SigIgn"], 16) & (1 << (signal.SIGTERM - 1) | 1 << (signal.SIGHUP - 1)) == 0
    assert os.getpriority(os.PRIO_PROCESS, server.pid) == 0
    assert os.sched_getaffinity(server.pid) == os.sched_getaffinity(0)
    assert os.sched_getscheduler(server.pid) == os.SCHED_OTHER
    assert warm_host.run(["ionice", "-p", str(server.pid)]).startswith("none:")
    assert os.getsid(server.pid) != os.getsid(0)
    assert (process / "oom_score_adj").read_text() == "0\n"


def test_an_idle_server_ends(warm_host: WarmHost) -> None:
    warm_host.run(["sh", "-c", "echo '{\"idleSeconds\": 1}' > /etc/cni/pycni/warm.json"])
    warm_host.odd()
    [server] = warm_host.call(control.find)
    # It gives up its socket first and ends then.
    wait_until(lambda: not (warm_host.servers() or Path(f"/proc/{server.pid}/root").exists()))
    assert not inside(warm_host, socket_of(warm_host)).exists()
    assert not is_cold(warm_host)


@pytest.mark.parametrize(
    ("wrapper", "text", "limit_s"),
    [
        ([], "{}", 60),
        ([], '{"idleSeconds": 600}', 600),
        # The first process that can be seen lives where the call is made, as on a host.
        (["unshare", "--pid", "--fork", "--mount-proc"], "{}", 600),
    ],
)
def test_a_server_in_namespaces_of_its_own_waits_for_less_time(
    warm_host: WarmHost, wrapper: list[str], text: str, limit_s: int
) -> None:
    warm_host.run(["sh", "-c", f"echo '{text}' > /etc/cni/pycni/warm.json"])
    command = f"CNI_COMMAND=VERSION {warm_host.bindir}/{scene.LOOPBACK}; cat {FOLDER}/log"
    assert f", idle timeout {limit_s} s" in warm_host.run([*wrapper, "sh", "-c", command])


def test_without_a_null_device_the_call_is_cold(warm_host: WarmHost) -> None:
    """The output ends. A server that could not replace the descriptor would keep it open."""
    warm_host.run(["mount", "-t", "tmpfs", "tmpfs", "/dev"])
    for _ in range(2):
        assert int(warm_host.facts()["parent"]) not in warm_host.servers()
    assert warm_host.servers() == []
    warm_host.run(["umount", "/dev"])
    assert not is_cold(warm_host)


def test_wrong_settings_are_logged_and_harmless(warm_host: WarmHost) -> None:
    warm_host.run(["sh", "-c", 'echo \'{"workers": "many"}\' > /etc/cni/pycni/warm.json'])
    assert not is_cold(warm_host)
    assert "using default settings" in warm_host.log()
    assert len(warm_host.status()["workers"]) == 4
