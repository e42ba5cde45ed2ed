"""docs/security.md on names and calls, and that the page names a test for each of its claims."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni.errors import Code
from cni.testing import direct
from cni.testing.place import BARE_ENV
from cni.warm import control
from plugin_table import ROOT, declared, packages
from tests.netns.security_host import BACKENDS, Chain, make_host
from tests.support import scene
from tests.support.patience import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.testing import Host

NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become others")


@pytest.fixture
def one_worker(served_bindir: Path) -> Iterator[Host]:
    with make_host(served_bindir) as host:
        yield host


def test_every_claim_of_the_page_names_tests_that_exist() -> None:
    page = (ROOT / "docs/security.md").read_text()
    section = page[page.index("## What holds") : page.index("## Limits")]
    files = {path.name: path.read_text() for path in ROOT.rglob("tests/**/test_*.py")}
    file = missing = ""
    for claim in section.split("\n- ")[1:]:
        named = re.findall(r"`(?:(test_\w+\.py))?(?:::)?(test_\w+)?`|(tests/\w+)", claim)
        assert named, claim
        for name, test, folder in named:
            file = name or (file if f"`::{test}`" in claim else Path(__file__).name)
            is_there = (ROOT / folder).is_dir() if folder else f"def {test}" in files.get(file, "")
            missing += "" if is_there else f"{file}::{test}{folder} "
    assert missing == ""


# ---- names ----

BAD_NAMES = [
    "..", "../x", "a/b", "/a", "a\nb", "a\n", "a b", "-a", ".a", "a;id", "$(id)", "a'b", 'a"b', "a\\b", "a*",
    "a,b", "a{", "a|b", "a#", "a%n", "é", "a\x01", "\udcff", "a:b", "a=b",
]  # fmt: skip
BAD_IFNAMES = ["..", ".", "a/b", "a\nb", "a b", "a\tb", "a:b", "x" * 16, "é" * 8, "a\u2003b"]
# The kernel takes them, so they are taken; nowhere are they anything but a name.
ODD_IFNAMES = ["a;id>b", 'a"b', "a'b", "a\\b", "$(id)", "`id`", "-j", "a,b", "{a}", "a#b", "é", '"']
CONF: dict[str, Any] = {
    "cniVersion": "1.0.0", "type": scene.IPAM, "ipam": {"type": scene.IPAM, "subnet": "10.1.0.0/24"},
    "prevResult": {"cniVersion": "1.0.0"},
}  # fmt: skip


@pytest.mark.parametrize("kind", ["id", "network", "ifname"])
def test_an_invalid_name_is_refused(host: Host, kind: str) -> None:
    """By the skeleton, which all plugins share, before anything is done."""
    before = host.snapshot(exact=True)
    names = BAD_IFNAMES if kind == "ifname" else BAD_NAMES
    wanted = Code.INVALID_CONFIG if kind == "network" else Code.INVALID_ENVIRONMENT
    answers = host.call(_answers, kind, names)
    assert {each: code for each, code in answers.items() if code != wanted} == {}
    assert len(answers) == 3 * len(names)
    conf = {"cniVersion": "1.0.0", "name": "a/../b" if kind == "network" else "net1"}
    container_id, ifname = "a/../b" if kind == "id" else "c1", "a/../b" if kind == "ifname" else "eth0"
    for plugin in packages(declared()):
        answer = host.plugin(
            plugin, "ADD", conf, netns="/run/netns/none", container_id=container_id, ifname=ifname
        )
        assert answer.code == wanted
    assert before.differences(host.snapshot(exact=True)) == []


def _answers(kind: str, names: list[str]) -> dict[tuple[str, str], int]:
    found = {}
    for name in names:
        conf = CONF | {"name": name if kind == "network" else "net1"}
        for verb in ("ADD", "CHECK", "DEL"):
            answer = direct.call(
                scene.load(scene.IPAM),
                verb,
                conf,
                container_id=name if kind == "id" else "c1",
                ifname=name if kind == "ifname" else "eth0",
            )
            found[verb, name] = answer.code
    return found


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_odd_name_is_a_name_and_nothing_else(one_worker: Host, backend: str) -> None:
    host = one_worker
    chain, sandbox = Chain(host, backend), host.sandbox("c1")
    plain = chain.add(sandbox)
    plain.must()
    shape = _rules(host)
    chain.delete(sandbox)
    before = host.snapshot()
    for name in ODD_IFNAMES:
        answer = chain.add(sandbox, ifname=name)
        result = answer.must()
        assert name in sandbox.links()
        assert _rules(host) == shape, name
        chain.check(sandbox, result, ifname=name)
        assert [each for each in chain.delete(sandbox, ifname=name) if not each.ok] == []
        assert before.differences(host.snapshot()) == [], name


def _rules(host: Host) -> list[str]:
    """Return how many rules each chain and how many elements each set has."""
    found: dict[str, int] = {}
    for item in json.loads(host.run(["nft", "-j", "list", "ruleset"]))["nftables"]:
        [(kind, value)] = item.items()
        name = value.get("chain", value.get("name", ""))
        where = f"{value.get('family')} {value.get('table')} {name[:8]} {kind}"
        found[where] = found.get(where, 0) + len(value.get("elem", [0]))
    return sorted(f"{where}: {number}" for where, number in found.items())


@pytest.mark.parametrize("type_", ["../bin/sh", "/bin/sh", "..", "sh\n", "a/../../bin/sh"])
def test_a_delegate_is_a_name_in_the_folders_of_plugins(host: Host, type_: str) -> None:
    conf = {"cniVersion": "1.0.0", "name": "net1", "type": scene.INTERFACE, "ipam": {"type": type_}}
    answer = host.plugin(scene.INTERFACE, "ADD", conf, netns=host.sandbox("c1"))
    assert answer.code == Code.INVALID_CONFIG
    assert json.dumps(type_)[1:-1] in answer.stdout


def test_a_name_that_the_kernel_would_change_is_refused(host: Host) -> None:
    """Of "eth%d" it makes eth0."""
    sandbox, chain = host.sandbox("c1"), Chain(host)
    before = host.snapshot()
    answer = chain.add(sandbox, ifname="eth%d")
    assert (answer.code, answer.msg) == (4, 'failed to make veth pair: no link can be called "eth%d"')
    chain.delete(sandbox, ifname="eth%d")
    assert [each for each in before.differences(host.snapshot()) if "cni0" not in each] == []


# ---- calls among each other ----


def _pose(path: str, launcher: str) -> tuple[bytes, bytes]:
    """Serve a call by root as another user. Return the bytes received and the response of the call."""
    command = ["sh", "-c", f"read -r go && exec {launcher}"]
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=BARE_ENV | {"CNI_COMMAND": "VERSION"}
        ) as caller,
    ):
        listener.settimeout(20)
        listener.bind(path)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        listener.listen()
        answer, _ = caller.communicate(b"go\n", timeout=60)
        with listener.accept()[0] as connection:
            return connection.recv(1000), answer


@as_root
def test_a_server_of_another_user_hears_nothing(one_worker: Host) -> None:
    launcher = str(one_worker.bindir / scene.LOOPBACK)
    path = one_worker.run([launcher, "--warm-socket"]).strip()
    heard, answer = one_worker.call(_pose, path, launcher)
    assert heard == b""
    assert b"supportedVersions" in answer


SECRET = "hush-4711-nobody-else"  # noqa: S105 - what a pod's author may have in its annotations
# Everything that a call brings, a runtime may have filled with things of its container.
TOLD = {
    "args": f"IgnoreUnknown=1;K8S_POD_NAME={SECRET}",
    "env": {"TOKEN": SECRET, "CNI_SECRET": SECRET, "LC_ALL": SECRET},
}
UNUSED = {"password": SECRET, "args": {"cni": {"labels": SECRET}, "other": [SECRET]}}


def status(host: Host) -> dict[str, Any]:
    [server] = host.call(control.find)
    return host.call(control.status, server)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_call_hears_of_another(one_worker: Host, backend: str) -> None:
    host = one_worker
    theirs, ours = Chain(host, backend, keys=UNUSED), Chain(host, backend, port=8081)
    sandbox, other = host.sandbox("c1"), host.sandbox("c2")
    heard = []
    for _ in range(3):
        theirs.add(sandbox, **TOLD).must()
        answer = ours.add(other, container_id="c2")
        ours.check(other, answer.must(), container_id="c2")
        heard += [answer, *ours.delete(other, container_id="c2")]
        assert [each for each in theirs.delete(sandbox, **TOLD) if not each.ok] == []
        # A call is counted when it has been answered, and a busy machine needs one more worker until then.
        wait_until(lambda: status(host).get("busy") == 0)
    told = status(host)
    assert told["requests"] == 30
    assert told["workers_made"] <= 6
    # Those that fail; what was sent is told to who has sent it.
    assert SECRET in theirs.add(sandbox, args=f"UNKNOWN={SECRET}").stdout
    assert SECRET in host.plugin(scene.INTERFACE, "ADD", {"name": "n", "mtu": SECRET}, netns=sandbox).stdout
    assert not host.plugin(scene.LOOPBACK, "ADD", f'{{"name": "{SECRET}"', netns=sandbox).ok
    for wrong in ({"name": "n", "mtu": "x"}, "{", {"cniVersion": "9"}, {}):
        heard += [host.plugin(scene.INTERFACE, verb, wrong, netns=other) for verb in ("ADD", "DEL", "NONE")]
    assert len(heard) == 21
    assert [each for each in heard if SECRET in each.stdout + each.stderr] == []


def test_a_secret_of_a_call_is_stored_nowhere(one_worker: Host) -> None:
    """Neither in files nor in rules nor in the log; only the runtime's cache has it, for its user alone."""
    host = one_worker
    sandbox = host.sandbox("c1")
    for backend in BACKENDS:
        chain = Chain(host, backend, keys=UNUSED)
        chain.add(sandbox, **TOLD).must()
        places = ["/run/pycni", "/var/lib/cni", "/etc/cni"]
        assert host.run(["grep", "-r", "-l", SECRET, *places], check=False) == ""
        assert SECRET not in host.run(["nft", "list", "ruleset"])
        assert SECRET not in host.run(["ip", "-d", "link"])
        chain.delete(sandbox, **TOLD)
    [server] = host.call(control.find)
    for pid in [server.pid, *control.children(server.pid)]:
        assert SECRET.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
        assert SECRET.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
