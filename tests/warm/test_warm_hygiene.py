"""A call cannot see state of the call before: a changed worker ends, whatever the change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import scene
from tests.support.patience import wait_until
from tests.warm.odd.cni_odd import CHANGES, LEAKS

if TYPE_CHECKING:
    from tests.warm.conftest import WarmHost

pytestmark = pytest.mark.forked
# What is frozen may be freed.
SELF = {"pid", "descriptors", "frozen"}


def facts_at_rest(host: WarmHost, do: str = "") -> dict[str, str]:
    """Make a call when no worker is busy with the one before, and return its facts."""
    if host.servers():
        host.await_idle()
    return host.facts(do)


def shown(facts: dict[str, str]) -> dict[str, str]:
    """Return the facts that two calls of unchanged workers share."""
    files = {"files": str(len(facts["descriptors"].split(",")))}
    return {name: value for name, value in facts.items() if name not in SELF} | files


def test_workers_are_reused(warm_host: WarmHost) -> None:
    """The server starts a spare worker while others are busy or in their leak check."""
    facts = [facts_at_rest(warm_host) for _ in range(20)]
    assert len({each["pid"] for each in facts}) <= 4
    assert all(shown(each) == shown(facts[0]) for each in facts)
    assert warm_host.status()["workers_made"] <= 4


@pytest.mark.parametrize("what", LEAKS)
def test_a_changed_worker_is_not_reused(warm_host: WarmHost, what: str) -> None:
    before = warm_host.facts()
    changed = warm_host.facts(what)
    later = [warm_host.facts() for _ in range(4)]
    assert changed["pid"] not in {each["pid"] for each in later}
    assert all(shown(each) == shown(before) for each in later)
    # A thread may be one that works on after the answer, so it is waited for.
    if what != "thread":
        wait_until(lambda: not Path(f"/proc/{changed['pid']}").exists())


@pytest.mark.parametrize("what", CHANGES)
def test_allowed_changes_of_a_call_are_reset(warm_host: WarmHost, what: str) -> None:
    changed = warm_host.facts(what)
    answers = []
    for _ in range(4):
        warm_host.await_idle()
        answers.append(warm_host.odd())
    facts = [json.loads(answer.stderr.splitlines()[0]) for answer in answers]
    assert changed["pid"] in {each["pid"] for each in facts}
    assert all(shown(each) == shown(changed) for each in facts)
    assert all(answer.stdout == answers[0].stdout for answer in answers)
    assert "left in a buffer" not in answers[0].stdout


def test_a_call_has_environment_folder_and_umask_of_its_caller(warm_host: WarmHost) -> None:
    place = warm_host.place
    script = f"cd /usr/lib; umask 0123; exec {warm_host.bindir}/odd"
    env = {
        "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/none", "CNI_IFNAME": "eth0",
        "CNI_PATH": "/opt", "PATH": "/usr/bin", "MINE": "here", "ODD": "a=b\n\udcff", "EMPTY": "",
    }  # fmt: skip
    stdin = '{"cniVersion": "1.0.0", "name": "n", "type": "odd"}'
    done = place.run(["sh", "-c", script], stdin, env=env)
    facts = done.stderr
    assert "'MINE': 'here'" in facts
    assert "'EMPTY': ''" in facts
    assert r"'ODD': 'a=b\\n\\udcff'" in facts
    assert "/usr/lib" in facts
    assert "Umask:\\\\t0123" in facts
    assert "LANG" not in facts
    again = warm_host.facts()
    assert "MINE" not in again["environment"]
    assert "Umask:\\t0022" in again["threads, signals, umask or rights"]


def test_workers_are_used_for_two_hundred_mixed_calls(warm_host: WarmHost) -> None:
    """ADD, CHECK and DEL with both backends, IPAM in the same process, children for iptables."""
    sandbox = warm_host.sandbox("c1")
    calls = 0
    for backend in ("nftables", "iptables"):
        conf = {
            "cniVersion": "1.0.0", "name": "n", "type": scene.INTERFACE, "isGateway": True, "ipMasq": True,
            "ipMasqBackend": backend, "ipam": {"type": scene.IPAM, "subnet": "10.22.0.0/16"},
        }  # fmt: skip
        mapping = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
        ports = {
            "cniVersion": "1.0.0", "name": "n", "type": scene.PORTS, "backend": backend,
            "runtimeConfig": {"portMappings": [mapping]},
        }  # fmt: skip
        for _ in range(17):
            result = warm_host.plugin(scene.INTERFACE, "ADD", conf, netns=sandbox).must()
            known = {"prevResult": result}
            warm_host.plugin(scene.PORTS, "ADD", ports | known, netns=sandbox).must()
            for name, own in ((scene.INTERFACE, conf), (scene.PORTS, ports)):
                warm_host.plugin(name, "CHECK", own | known, netns=sandbox).must()
            for name, own in ((scene.PORTS, ports), (scene.INTERFACE, conf)):
                warm_host.plugin(name, "DEL", own | known, netns=sandbox).must()
            calls += 6
            warm_host.await_idle()
    status = warm_host.status()
    assert status["requests"] == calls
    assert status["workers_made"] <= 8
    assert "the last call changed" not in warm_host.log()


def test_a_worker_is_replaced_after_its_calls(warm_host: WarmHost) -> None:
    warm_host.run(["sh", "-c", 'echo \'{"workers": 1, "calls": 3}\' > /etc/cni/pycni/warm.json'])
    pids = [facts_at_rest(warm_host)["pid"] for _ in range(12)]
    assert max(map(pids.count, pids)) == 3


def test_a_plugins_exit_is_the_exit_status(warm_host: WarmHost) -> None:
    assert warm_host.odd("exit").status == 3


def test_the_log_names_leaked_objects(warm_host: WarmHost) -> None:
    warm_host.odd("open file")
    warm_host.odd()
    warm_host.await_log("the last call changed its descriptors")
