"""The command as people and scripts call it, with plugins that record what they are given."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.scripted import ScriptedPlugins
from tests.support import scene
from tests.support.command import Command

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")

C1 = "cnitool-20b4ff582526573bbe7d"
WITH_HOST_END = {"cniVersion": "1.1.0", "interfaces": [{"name": "veth0"}, {"name": "eth0", "sandbox": "x"}]}
FAIL = 'print(json.dumps({"code": 103, "msg": "port taken", "details": "by c9"})); sys.exit(1)'


class Pycni:
    """The command on a host of its own, with plugins of the test and networks in /etc/cni/net.d."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.host = host
        self.plugins = ScriptedPlugins(folder)
        self.command = Command(folder, folder)
        host.run(["mkdir", "-p", "/etc/cni/net.d"])

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run the command, forked, with nothing in its environment but `env`."""
        done = self.command.run(self.host.place, *arguments, env=env, check=False)
        assert "Traceback" not in done.stderr
        return done

    def ok(self, *arguments: str, **env: str) -> str:
        """Run it successfully, with nothing on stderr, and give what it printed."""
        done = self.run(*arguments, **env)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def network(self, name: str, *plugins: dict[str, Any], version: str = "1.1.0", file: str = "") -> None:
        """Configure a network."""
        document = {"cniVersion": version, "name": name, "plugins": list(plugins) or [{"type": "first"}]}
        self.write(file or f"10-{name}.conflist", json.dumps(document))

    def write(self, file: str, text: str) -> None:
        """Write a file into /etc/cni/net.d."""
        self.host.run(["cp", "/dev/stdin", f"/etc/cni/net.d/{file}"], text)

    def cached(self) -> list[str]:
        """List the result cache."""
        return self.host.run(["ls", "/var/lib/cni/results"]).split()


@pytest.fixture
def pycni(host: Host, tmp_path: Path) -> Pycni:
    command = Pycni(host, tmp_path)
    command.plugins.write("first")
    command.network("net")
    return command


def test_add_prints_the_result_and_nothing_else(pycni: Pycni) -> None:
    # The executable itself; most tests fork the command.
    printed = pycni.host.run([str(pycni.command), "add", "net", "/run/netns/c1"], env={})
    assert printed == json.dumps({"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.2/24"}]}, indent=4)
    call = pycni.plugins.calls[0]
    assert call["env"]["CNI_CONTAINERID"] == C1
    assert call["env"]["CNI_NETNS"] == "/run/netns/c1"
    assert call["env"]["CNI_IFNAME"] == "eth0"
    assert call["env"]["CNI_PATH"] == str(pycni.plugins.folder)
    assert pycni.cached() == [f"net-{C1}-eth0"]


def test_check_del_gc_and_status_print_nothing(pycni: Pycni) -> None:
    pycni.ok("add", "net", "/run/netns/c1", "-i", "net1")
    for verb in ("check", "del", "gc", "status"):
        options = [] if verb in {"gc", "status"} else ["--ifname", "net1"]
        assert pycni.ok(verb, "net", "/run/netns/c1", *options) == ""
    verbs = ("ADD", "CHECK", "DEL", "GC", "PYCNI_LINT", "STATUS")
    assert pycni.plugins.order == [f"{verb} first" for verb in verbs]
    assert pycni.cached() == []


def test_del_remembers_the_capability_args(pycni: Pycni) -> None:
    pycni.network("net", {"type": "first", "capabilities": {"mac": True}})
    env = {"CAP_ARGS": '{"mac": "02:00:00:00:00:01"}', "CNI_ARGS": "K=v", "CNI_IFNAME": "net1"}
    pycni.ok("add", "net", "/run/netns/c1", **env)
    pycni.ok("del", "net", "/run/netns/c1", CNI_IFNAME="net1")
    add, delete = pycni.plugins.calls
    assert add["stdin"]["runtimeConfig"] == delete["stdin"]["runtimeConfig"] == {"mac": "02:00:00:00:00:01"}
    assert add["env"]["CNI_ARGS"] == delete["env"]["CNI_ARGS"] == "K=v"


def test_del_works_for_a_network_that_is_not_configured_any_more(pycni: Pycni) -> None:
    pycni.ok("add", "net", "/run/netns/c1")
    pycni.host.run(["rm", "/etc/cni/net.d/10-net.conflist"])
    pycni.ok("del", "net", "/run/netns/c1")
    assert pycni.plugins.order == ["ADD first", "DEL first"]
    assert pycni.run("del", "net", "/run/netns/c1").returncode == 1


def test_gc_removes_every_attachment(pycni: Pycni) -> None:
    pycni.host.sandbox("c1")
    for path in ("/run/netns/c1", "/run/netns/c2"):
        pycni.ok("add", "net", path)
    pycni.ok("gc", "net", "unused")
    assert pycni.plugins.order[2:] == ["DEL first", "DEL first", "GC first"]
    assert pycni.plugins.calls[-1]["stdin"]["cni.dev/valid-attachments"] == []
    assert pycni.cached() == []


def test_gc_of_the_dead_keeps_what_has_its_namespace(pycni: Pycni) -> None:
    # A host end that the kernel does not have proves that its container is gone.
    pycni.plugins.write("first", f"if verb == 'ADD': print({json.dumps(WITH_HOST_END)!r})")
    pycni.host.sandbox("c1")
    for path in ("/run/netns/c1", "/run/netns/c2"):
        pycni.ok("add", "net", path)
    pycni.ok("gc", "net", "--dead-only")
    valid = [{"containerID": C1, "ifname": "eth0"}]
    assert pycni.plugins.calls[-1]["stdin"]["cni.dev/valid-attachments"] == valid
    assert pycni.cached() == [f"net-{C1}-eth0"]


def test_gc_of_the_dead_keeps_what_nothing_proves_to_be_gone(pycni: Pycni) -> None:
    """The result names no host end, and paths count in the machine's own mount namespace only."""
    pycni.ok("add", "net", "/run/netns/c1")
    pycni.ok("gc", "net", "--dead-only")
    assert pycni.cached() == [f"net-{C1}-eth0"]
    as_the_machine = ["unshare", "--pid", "--fork", "--mount-proc", str(pycni.command)]
    pycni.host.run([*as_the_machine, "gc", "net", "--dead-only"], env={"CNI_PATH": str(pycni.plugins.folder)})
    assert pycni.cached() == []


def test_a_failure_is_one_line_with_a_hint(pycni: Pycni) -> None:
    pycni.plugins.write("first", FAIL)
    done = pycni.run("add", "net", "/run/netns/c1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == 'pycni: plugin type="first" failed (add): port taken (by c9)\n'
    assert pycni.plugins.order == ["ADD first"]


def test_a_failure_is_an_error_object_for_programs(pycni: Pycni) -> None:
    pycni.plugins.write("first", FAIL)
    done = pycni.run("add", "net", "/run/netns/c1", "--json", "--undo")
    expected = {"code": 103, "msg": 'plugin type="first" failed (add): port taken', "details": "by c9"}
    told = json.loads(done.stdout)
    assert (done.returncode, done.stderr, told["code"], told["msg"]) == (1, "", 103, expected["msg"])
    assert pycni.plugins.order == ["ADD first", "DEL first"]
    assert told["details"].startswith('by c9; also: plugin type="first" failed (delete): port taken')


WRONG_USAGE = (
    (["add"], "Missing argument 'NETWORK'"),
    (["add", "net"], "Missing argument 'NETNS'"),
    (["bogus"], "No such command 'bogus'"),
    (["warm", "bogus"], "No such command 'bogus'"),
    (["add", "net", "/n", "--bogus"], "No such option"),
    (["add", "net", "/n", "--timeout", "soon"], "Invalid value for '--timeout'"),
)


def test_wrong_usage_is_exit_code_2_and_one_line(pycni: Pycni) -> None:
    for arguments, told in WRONG_USAGE:
        done = pycni.run(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert told in done.stderr
        assert done.stderr.count("\n") == 1


WRONG_INPUT: tuple[tuple[list[str], dict[str, str], str], ...] = (
    (["add", "other", "/n"], {}, 'no net configuration with name "other" in /etc/cni/net.d'),
    (["add", "net", "/n"], {"NETCONFPATH": "/nowhere"}, "no net configurations found in /nowhere"),
    (["add", "net", "/n"], {"CNI_PATH": "/nowhere"}, 'failed to find plugin "first" in path [/nowhere]'),
    (["add", "net", "/n"], {"CAP_ARGS": "{"}, "could not decode CAP_ARGS"),
    (["add", "net", "/n"], {"CNI_ARGS": "a"}, 'invalid CNI_ARGS pair "a"'),
    (["add", "net", "/n", "-i", "a/b"], {}, "interface name contains / or :"),
    (["add", "net", ""], {}, "the netns path is empty"),
    (["check", "net", "/n"], {}, 'network "net" has no attachment'),
    (["show", "other"], {}, 'there is no network "other"'),
)


def test_wrong_input_is_exit_code_1_and_one_line(pycni: Pycni) -> None:
    for arguments, env, told in WRONG_INPUT:
        done = pycni.run(*arguments, **env)
        assert (done.returncode, done.stdout) == (1, ""), (arguments, env)
        assert told in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_plugin_that_hangs_is_ended_after_the_time_limit(pycni: Pycni) -> None:
    pycni.plugins.write("first", "import time; time.sleep(60)")
    done = pycni.run("add", "net", "/run/netns/c1", "--timeout", "1.5")
    assert done.returncode == 1
    assert "did not end within 1.5 s and was killed" in done.stderr


def test_an_interrupted_call_says_so(pycni: Pycni) -> None:
    pycni.plugins.write("first", "import time; time.sleep(60)")
    # A shell starts what runs in the background, such as all tests, with SIGINT ignored.
    heeding = ["/usr/bin/env", "--default-signal=INT", str(pycni.command)]
    process = pycni.host.place.popen([*heeding, "add", "net", "/run/netns/c1"], env={})
    while not pycni.plugins.calls:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told == 'pycni: interrupted; run "pycni del" to remove partial state\n'


def test_output_of_a_plugin_cannot_control_the_terminal(pycni: Pycni) -> None:
    pycni.plugins.write("first", r'print(json.dumps({"code": 7, "msg": "a\x1b[2Jb\nc"})); sys.exit(1)')
    assert pycni.run("add", "net", "/n").stderr == 'pycni: plugin type="first" failed (add): a [2Jb c\n'


def test_a_disk_that_is_full_is_told_after_the_add(pycni: Pycni) -> None:
    pycni.host.run(["mount", "-o", "remount,ro", "/var/lib/cni"])
    done = pycni.run("add", "net", "/run/netns/c1")
    assert done.returncode == 1
    assert 'failed to set network "net" cached result: could not create /var/lib/cni/results' in done.stderr


def test_the_hint_is_dim_on_a_terminal_only(pycni: Pycni) -> None:
    reader, terminal = pty.openpty()
    env = {"NETCONFPATH": "/nowhere"}
    subprocess.run([str(pycni.command), "add", "net", "/n"], stderr=terminal, env=env, check=False)
    told = os.read(reader, 10_000).decode()
    os.close(reader)
    os.close(terminal)
    assert told.startswith("pycni: no net configurations found in /nowhere \x1b[2m(Put a file")


@pytest.mark.parametrize(
    ("redirected", "status", "told"),
    [
        (">&-", "0", ""),
        ("| true", "0", ""),
        (">/dev/full", "1", "pycni: cannot write to stdout: No space left on device\n"),
    ],
)
def test_a_stdout_that_nobody_reads_is_no_accident(
    pycni: Pycni, redirected: str, status: str, told: str
) -> None:
    for verb in ("networks", "networks --json"):
        done = pycni.host.place.run(["sh", "-c", f"{pycni.command} {verb} {redirected}; echo $?"])
        assert (done.stdout, done.stderr) == (f"{status}\n", told)


def test_versions_are_those_of_the_plugins(pycni: Pycni) -> None:
    assert pycni.ok("version", "net") == f"first: 0.4.0 1.0.0 1.1.0  ({pycni.plugins.folder}/first)\n"
    pycni.network("old", version="0.3.1")
    done = pycni.run("version", "old", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["msg"] == 'plugin first does not support config version "0.3.1"'


def test_networks_lists_what_is_configured(pycni: Pycni) -> None:
    ipam = {"type": scene.IPAM, "ranges": [[{"subnet": "10.1.0.0/16"}], [{"subnet": "fd01::/64"}]]}
    pycni.network("web", {"type": scene.INTERFACE, "ipam": ipam}, {"type": scene.PORTS}, version="1.0.0")
    pycni.network("net", file="20.conflist")
    pycni.write("30.conf", "{")
    done = pycni.run("networks", "--json")
    shown = json.loads(done.stdout)
    assert [each["name"] for each in shown["networks"]] == ["net", "web", "net"]
    assert shown["networks"][1] == {
        "name": "web",
        "cniVersion": "1.0.0",
        "plugins": [scene.INTERFACE, scene.PORTS],
        "subnets": ["10.1.0.0/16", "fd01::/64"],
        "file": "/etc/cni/net.d/10-web.conflist",
    }
    assert shown["networks"][2]["hiddenBy"] == "/etc/cni/net.d/10-net.conflist"
    assert [each["file"] for each in shown["broken"]] == ["/etc/cni/net.d/30.conf"]
    assert done.returncode == 1
    assert done.stderr.startswith("pycni: could not decode /etc/cni/net.d/30.conf")
    table = pycni.run("networks").stdout.splitlines()
    assert table[0].split() == ["NETWORK", "VERSION", "PLUGINS", "SUBNETS", "FILE"]
    assert len(table) == 4
    assert "\x1b" not in "".join(table)


def test_networks_of_an_empty_folder_is_no_error(pycni: Pycni) -> None:
    assert pycni.ok("networks", NETCONFPATH="/nowhere") == "No networks are configured in /nowhere.\n"
