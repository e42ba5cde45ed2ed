"""Whole processes, many at a time, and the Go plugin on the same pool."""

from __future__ import annotations

import json
import os
import pickle
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import direct
from cni.testing.host import GO, Host
from cni.testing.place import BARE_ENV, fork
from cni_host_local_ipam import PLUGIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.testing.answer import Answer

needs_go = [
    pytest.mark.interop,
    pytest.mark.skipif(not (GO / "host-local").exists(), reason="no Go plugins in /usr/lib/cni"),
]
# Tests that call the plugin in children of their own, whatever the host's calls are.
in_children = pytest.mark.modes("cold")
NETNS = "/run/netns/no-such-namespace"
FOLDER = "/var/lib/cni/networks/net"


def conf(subnet: str = "10.1.0.0/24", version: str = "1.0.0", **others: Any) -> dict[str, Any]:
    ipam = {"type": "host-local", "ranges": [[{"subnet": subnet}]]}
    return {"cniVersion": version, "name": "net", "type": "host-local", "ipam": ipam} | others


def run(
    host: Host, verb: str, container_id: str, bindir: Path | None = None, config: dict[str, Any] | None = None
) -> Answer:
    """Run an executable, ours or that in `bindir`."""
    return host.plugin(
        "host-local", verb, config or conf(), netns=NETNS, container_id=container_id, bindir=bindir
    )


def together(verb: str, count: int, config: dict[str, Any]) -> list[Answer]:
    """Run our plugin in so many processes that all start at the same moment."""
    ready, start = os.pipe()
    works = [partial(direct.call, PLUGIN, verb, config, container_id=f"c{n}") for n in range(count)]
    children = [_start(work, ready, start) for work in works]
    os.close(ready)
    os.close(start)
    answers = []
    for child, reader in children:
        with os.fdopen(reader, "rb") as pipe:
            answers.append(pickle.loads(pipe.read()))  # noqa: S301 - written by our own child
        os.waitpid(child, 0)
    return answers


def _start(work: Callable[[], Answer], ready: int, start: int) -> tuple[int, int]:
    reader, writer = os.pipe()
    child = fork()
    if child == 0:
        os.close(start)
        os.read(ready, 1)
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump(work(), pipe)
        os._exit(0)
    os.close(writer)
    return child, reader


def files(host: Host) -> dict[str, bytes]:
    return host.call(_files)


def _files() -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in Path(FOLDER).iterdir()}


def test_an_executable_gives_checks_and_releases(host: Host) -> None:
    assert run(host, "ADD", "c1").must()["ips"] == [{"address": "10.1.0.2/24", "gateway": "10.1.0.1"}]
    assert run(host, "CHECK", "c1").stdout == ""
    assert run(host, "DEL", "c1").stdout == ""
    assert set(files(host)) == {"lock", "last_reserved_ip.0"}


@in_children
def test_32_processes_at_once_get_32_addresses(host: Host) -> None:
    for first in (2, 34):
        answers = host.call(together, "ADD", 32, conf())
        given = [address for answer in answers for address in (answer.must() and answer.addresses)]
        assert set(given) == {f"10.1.0.{last}" for last in range(first, first + 32)}
        assert len(given) == 32
        assert all(answer.ok for answer in host.call(together, "DEL", 32, conf()))
        assert set(files(host)) == {"lock", "last_reserved_ip.0"}


@in_children
def test_processes_that_fight_for_the_last_addresses_lose_in_words(host: Host) -> None:
    answers = host.call(together, "ADD", 32, conf("10.1.0.0/29"))
    given = [answer.addresses[0] for answer in answers if answer.ok]
    assert sorted(given) == [f"10.1.0.{last}" for last in range(2, 7)]
    assert {answer.code for answer in answers if not answer.ok} == {102}


def test_processes_that_fail_together_do_not_harm_each_other(host: Host) -> None:
    """Each may remove the folder that it made while others wait for the lock in it."""
    asked = conf(runtimeConfig={"ips": ["10.9.9.9"]})
    answers = host.call(together, "ADD", 32, asked)
    assert {answer.msg for answer in answers} == {"failed to allocate all requested IPs: 10.9.9.9"}
    assert {answer.stderr for answer in answers} == {""}
    assert run(host, "ADD", "last").addresses == ["10.1.0.2"]


def test_a_held_lock_is_waited_for(host: Host) -> None:
    run(host, "ADD", "c0").must()
    holder = host.place.popen(["flock", f"{FOLDER}/lock", "sleep", "0.5"])
    assert run(host, "ADD", "c1").addresses == ["10.1.0.3"]
    assert holder.wait() == 0
    assert holder.stdout is not None
    assert holder.stderr is not None
    holder.stdout.close()
    holder.stderr.close()


def test_a_stopped_add_leaves_nothing(host: Host) -> None:
    """It waits for the lock, and so is stopped in the middle of its work."""
    host.run(["mkdir", "-p", FOLDER])
    script = "echo; exec sleep 600"
    holder = host.place.popen(["flock", "--no-fork", f"{FOLDER}/lock", "sh", "-c", script])
    assert holder.stdout is not None
    assert holder.stdout.readline() == "\n"
    names = {"CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_NETNS": NETNS, "CNI_PATH": "/bin"}
    stopped = host.place.popen(
        [str(host.bindir / "host-local")], json.dumps(conf()), env={**BARE_ENV, **names, "CNI_COMMAND": "ADD"}
    )
    with holder, stopped:
        _wait_until_a_plugin_waits(host)
        stopped.terminate()
        assert stopped.stdout is not None
        assert json.loads(stopped.stdout.read())["code"] == 11
        assert stopped.wait() == 1
        holder.terminate()
    assert set(files(host)) == {"lock"}


def _wait_until_a_plugin_waits(host: Host) -> None:
    """Return when a process of this host, a warm worker or the plugin's own, has the lock file open."""
    own = Path(f"/proc/{host.pid}/ns/mnt").stat().st_ino
    deadline = time.monotonic() + 60
    while not any(_has_lock(process, own) for process in Path("/proc").glob("[0-9]*")):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _has_lock(process: Path, mount_namespace: int) -> bool:
    # It may have ended, or have closed a file, since these were listed.
    with suppress(OSError):
        if (process / "ns/mnt").stat().st_ino != mount_namespace:
            return False
        if (process / "comm").read_text() in {"flock\n", "sh\n", "sleep\n"}:
            return False
        return any(str(each.readlink()) == f"{FOLDER}/lock" for each in (process / "fd").iterdir())
    return False


def _add_and_be_killed(count: int) -> int:
    """Let so many ADDs be killed, each a little later in its work than the one before. Return how many were.

    On a busy machine these are more: at least one has reserved an address.
    """
    number = 0
    while number < count or not Path(FOLDER, "last_reserved_ip.0").exists():
        child = fork()
        if child == 0:
            direct.call(PLUGIN, "ADD", conf(), container_id=f"c{number}")
            os._exit(0)
        time.sleep(number * 0.0001)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        number += 1
    return number


def _delete(count: int) -> list[Answer]:
    return [direct.call(PLUGIN, "DEL", conf(), container_id=f"c{number}") for number in range(count)]


@in_children
def test_a_killed_add_leaves_whole_files_or_none_and_del_frees_them(host: Host) -> None:
    killed = host.call(_add_and_be_killed, 60)
    left = files(host)
    leases = {name: content for name, content in left.items() if name.startswith("10.")}
    assert all(content.endswith(b"\r\neth0") for content in leases.values())
    assert len(set(leases.values())) == len(leases)
    assert left["last_reserved_ip.0"].startswith(b"10.1.0.")
    assert all(answer.ok for answer in host.call(_delete, killed))
    keys: dict[str, Any] = {"cni.dev/valid-attachments": []}
    host.call(direct.call, PLUGIN, "GC", conf(version="1.1.0", **keys)).must()
    assert set(files(host)) == {"lock", "last_reserved_ip.0"}


class TestBothSuitesOnOnePool:
    pytestmark = needs_go

    def test_they_take_turns_in_one_ring(self, host: Host) -> None:
        given = []
        for number in range(6):
            given += run(host, "ADD", f"c{number}", GO if number % 2 else None).addresses
        assert given == [f"10.1.0.{last}" for last in range(2, 8)]
        assert files(host)["10.1.0.2"] == b"c0\r\neth0"
        assert files(host)["10.1.0.3"] == b"c1\r\neth0"
        assert files(host)["last_reserved_ip.0"] == b"10.1.0.7"

    def test_each_checks_and_releases_what_the_other_gave(self, host: Host) -> None:
        run(host, "ADD", "ours").must()
        run(host, "ADD", "theirs", GO).must()
        run(host, "CHECK", "ours", GO).must()
        run(host, "CHECK", "theirs").must()
        run(host, "DEL", "ours", GO).must()
        run(host, "DEL", "theirs").must()
        assert set(files(host)) == {"lock", "last_reserved_ip.0"}

    def test_each_refuses_what_the_other_gave(self, host: Host) -> None:
        nine, eight = (conf(runtimeConfig={"ips": [each]}) for each in ("10.1.0.9", "10.1.0.8"))
        run(host, "ADD", "ours", config=nine).must()
        assert "10.1.0.9 is not available" in run(host, "ADD", "theirs", GO, nine).msg
        run(host, "ADD", "theirs", GO, eight).must()
        assert "held by container theirs" in run(host, "ADD", "ours2", config=eight).msg
        assert "duplicate allocation" in run(host, "ADD", "ours", GO).msg
        assert "duplicate allocation" in run(host, "ADD", "theirs").msg

    def test_16_of_each_at_once_share_no_address(self, host: Host) -> None:
        with ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(lambda n: run(host, "ADD", f"c{n}", GO if n % 2 else None), range(32)))
        given = [address for answer in answers for address in (answer.must() and answer.addresses)]
        assert len(set(given)) == 32
        leases = {name: text for name, text in files(host).items() if name.startswith("10.")}
        assert set(leases) == set(given)
        assert set(leases.values()) == {f"c{number}\r\neth0".encode() for number in range(32)}

    @pytest.mark.parametrize("subnet", ["10.1.0.0/29", "fd00::/125"])
    def test_the_order_is_the_same_in_a_pool_of_its_own(self, host: Host, subnet: str) -> None:
        """A walk round the ring with gaps: ADD and DEL in the same order by each suite."""
        steps = ["a0", "a1", "a2", "d1", "a3", "a4", "a5", "d0", "d3", "a6", "a7", "a8", "d6", "d7", "a9"]
        answers: dict[str, list[list[str]]] = {"ours": [], "theirs": []}
        for suite, bindir in (("ours", None), ("theirs", GO)):
            config = conf(subnet, name=suite)
            for step in steps:
                verb, container_id = ("ADD" if step[0] == "a" else "DEL"), step[1:]
                if bindir:
                    answer = run(host, verb, container_id, bindir, config)
                else:
                    answer = host.call(direct.call, PLUGIN, verb, config, container_id=container_id)
                answers[suite].append([*answer.addresses, answer.msg])
        assert answers["ours"] == answers["theirs"]
