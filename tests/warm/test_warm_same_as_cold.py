"""A waiting worker, a worker for one call and a cold process have the same output and effects."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from cni.testing import Host, Snapshot, warm, why_no_namespaces
from cni.testing.zygote import Zygote
from cni.warm import control
from plugin_table import IPAM
from tests.support import scene
from tests.support.subjects import (
    BACKENDS,
    NONE_VALID,
    PLUGINS,
    chain,
    configuration,
    names,
    prepare,
    subjects,
)
from tests.warm.calls import REFUSED, VERBS, WRONG, in_order
from tests.warm.conftest import ODD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cni.testing import Answer

_IDLE_S = 3600
MODES: dict[str, dict[str, int] | None] = {"warm": {}, "single": {"calls": 1}, "cold": None}


class Told(NamedTuple):
    """The answer of a call, without what differs between any two runs."""

    status: int
    stdout: str
    stderr: str


class Run:
    """One host, with the answers of all calls on it and the state that they left, in order.

    Each call has the variables of `env` too.
    """

    def __init__(self, host: Host, env: dict[str, str]) -> None:
        prepare(host, *PLUGINS)
        self.host = host
        self._env = env
        self.sandbox = host.sandbox("c1")
        self.told: dict[str, Told] = {}
        self.there: dict[str, Snapshot] = {}

    def call(self, what: str, plugin: str, verb: str, conf: dict[str, Any] | str, **more: Any) -> Answer:
        env = self._env | more.pop("env", {})
        answer = self.host.plugin(plugin, verb, conf, env=env, **{"netns": self.sandbox} | more)
        # The kernel lists what is in a set in an order of its own.
        stdout = "\n".join(sorted(answer.stdout.splitlines())) if verb == "PYCNI_GC_PLAN" else answer.stdout
        self.told[what] = Told(answer.status, alike(stdout), alike(answer.stderr))
        return answer

    def look(self, when: str) -> None:
        """Record the state of the host."""
        found = self.host.snapshot()
        # How servers are set up is what the hosts differ in.
        files = [line for line in found.files if not line.startswith("/etc/cni/pycni/")]
        kinds = [found.links, found.addresses, found.routes, found.rules, files]
        self.there[when] = Snapshot(*[sorted(map(alike, lines)) for lines in kinds])

    def live(self, subject: str, backend: str) -> None:
        """Call each verb of each plugin of the chain for a container."""
        previous: dict[str, Any] = {}
        for verb in VERBS:
            for conf in in_order(verb, chain(subject, backend)):
                plugin = conf["type"]
                answer = self.call(f"{verb} {plugin}", plugin, verb, conf | previous | NONE_VALID)
                if verb == "ADD" and "ipam" in conf:
                    previous = {"prevResult": answer.must()}
            if verb in {"ADD", "DEL"}:
                self.look(f"after {verb}")

    def lease(self) -> None:
        """Call each verb of each IPAM plugin, and of the usual one until there is no address left."""
        for name in names(IPAM):
            self.call_all(name, configuration(name), "")
        small = {"type": scene.IPAM, "ranges": [[{"subnet": "10.2.0.0/30"}]]}
        self.call_all(scene.IPAM, configuration(scene.IPAM, name="small", ipam=small), ", small")
        self.look("after leases")

    def call_all(self, name: str, conf: dict[str, Any], when: str) -> None:
        """Call ADD of one container and each verb of a second one."""
        result = self.call(f"ADD {name}{when}", name, "ADD", conf).must()
        for verb in VERBS:
            more = NONE_VALID | {"prevResult": result}
            self.call(f"{verb} {name}{when}, second", name, verb, conf | more, container_id="c2")

    def go_wrong(self) -> None:
        """Make every call of `WRONG`."""
        self.host.run(["touch", "/run/netns/file"])
        for what, (plugin, verb, conf, more) in WRONG.items():
            self.call(what, plugin, verb, conf, **more)
        self.host.run(["rm", "/run/netns/file"])
        self.look("after errors")


# What two runs of one kind differ in: addresses by chance, and numbers that the kernel gives.
OWN = {
    r"\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b": "MAC",
    r"\bfe80::[0-9a-f:]+": "LINK-LOCAL",
    r"\bveth[0-9a-f]{8}\b": "VETH",
    r'"identity": \[\d+, \d+\]': "NETNS",
    r'"identity": "[\d:]+"': "NETNS",
    r'"view": "[^"]*"': "VIEW",
    r'"host": \d+': "HOST",
    r'"comment": "\d+:\d+"': "FILE",
    # Of published names: the time, the namespaces, and the digest of both in the file's name.
    r'"since_ns": \d+': "TIME",
    r'"owner": "[0-9a-f]{16}"': "NAMESPACES",
    r"(?<=/run/pycni/dns/[0-9a-f]/[0-9a-f]{16}-[0-9a-f]{32})\.[0-9a-f]{16}": ".DIGEST",
}


def alike(text: str) -> str:
    """Return a text with what differs between any two runs replaced."""
    for pattern, word in OWN.items():
        text = re.sub(pattern, word, text)
    return text


@pytest.fixture(scope="session")
def zygote(forked_servers: Path) -> Iterator[Zygote]:
    """Yield the process that forks cold calls."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ODD))
        zygote = Zygote(forked_servers)
    with zygote:
        yield zygote


@pytest.fixture
def runs(request: pytest.FixtureRequest) -> Iterator[dict[str, Run]]:
    """Return a host for each way of being served.

    The cold calls of the usual network, and its servers, start the executable. Others are forked.
    """
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    is_forked = request.node.get_closest_marker("forked")
    cold = request.getfixturevalue("zygote") if is_forked else None
    bindir = request.getfixturevalue("forked_servers" if is_forked else "odd_bindir")
    with Host(bindir) as one, Host(bindir) as two, Host(bindir, cold) as three:
        hosts = dict(zip(MODES, (one, two, three), strict=True))
        for mode, host in hosts.items():
            settings = MODES[mode]
            if settings is None:
                warm.switch_off(host.place)
            else:
                # The server is counted on at the end, when the slowest of the hosts has done.
                warm.set_up(host.place, idleSeconds=_IDLE_S, **settings)
        # The zygote forks the calls that this variable makes cold.
        own = {"cold": {"PYCNI_WARM": "off"} if is_forked else {}}
        yield {mode: Run(host, own.get(mode, {})) for mode, host in hosts.items()}
        assert hosts["cold"].call(control.find) == []


def assert_same(runs: dict[str, Run], do: Callable[[Run], None]) -> None:
    """Run the same on each host; fail the test if answers or remaining state differ."""
    with ThreadPoolExecutor(len(runs)) as pool:
        list(pool.map(do, runs.values()))
    cold = runs.pop("cold")
    for mode, run in runs.items():
        [server] = run.host.call(control.find)
        # The last one may not have been counted yet.
        assert run.host.call(control.status, server)["requests"] >= len(run.told) - 1
        assert list(run.told) == list(cold.told)
        for what, told in cold.told.items():
            assert (mode, what, run.told[what]) == (mode, what, told)
        assert {when: cold.there[when].differences(there) for when, there in run.there.items()} == {
            when: [] for when in cold.there
        }


def list_networks() -> Iterator[Any]:
    """Yield each subject with its backends; with one of them if the subject itself makes no rules."""
    for subject in subjects():
        is_usual = subject == scene.INTERFACE
        for backend in BACKENDS if is_usual or PLUGINS[subject].backend_key else BACKENDS[:1]:
            marks = [] if is_usual else [pytest.mark.forked]
            yield pytest.param(subject, backend, marks=marks, id=f"{subject}-{backend}")


@pytest.mark.parametrize(("subject", "backend"), list(list_networks()))
def test_every_verb_has_the_same_output_and_effects(runs: dict[str, Run], subject: str, backend: str) -> None:
    cold = runs["cold"]
    assert_same(runs, lambda run: run.live(subject, backend))
    refused = {" ".join(each) for each in REFUSED} & set(cold.told)
    assert {what for what, told in cold.told.items() if told.status} == refused
    # The container's link, its rules and its claims were looked at.
    assert len(cold.there["after DEL"].differences(cold.there["after ADD"])) > 20


@pytest.mark.forked
def test_addresses_are_the_same(runs: dict[str, Run]) -> None:
    cold = runs["cold"]
    assert_same(runs, Run.lease)
    assert cold.told[f"ADD {scene.IPAM}, small, second"].status == 1


@pytest.mark.forked
def test_errors_are_the_same(runs: dict[str, Run]) -> None:
    cold = runs["cold"]
    assert_same(runs, Run.go_wrong)
    assert {what for what, told in cold.told.items() if not told.status} == {"no verb"}
