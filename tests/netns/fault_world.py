"""A host with one container that must stay intact, and a second one whose calls are cut short."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from cni.service import client, control
from cni.testing import Host, warm, why_no_namespaces
from cni.testing.faults import TELL, VARIABLE, Fault, list_met
from cni.warm import control as warm_control
from tests.support import scene
from tests.support.subjects import BACKENDS, PLUGINS, called, chain, ipam, parts, prepare, second_keys

__all__ = ["BACKENDS"]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cni.testing import Answer, Sandbox
    from cni.testing.snapshot import Snapshot
    from cni.testing.zygote import Zygote

# Parametrize "plugin" with these: the world's network then has the plugin.
PARTS = parts()
WITH_STATE = [name for name in PARTS if PLUGINS[name].keeps_state]
WITH_RULES = [name for name in PARTS if PLUGINS[name].backend_key]
# The calls of a plugin without rules are the same with both backends.
BACKENDS_OF_PARTS = [*(("nftables", name) for name in PARTS), *(("iptables", name) for name in WITH_RULES)]
CALM, CUT, DEAD = "calm", "cut", "dead"
COLD = {"PYCNI_WARM": "off"}
# Which of the times that a call passes a fault point: "all" in `make soak`, "last" with --brief, otherwise
# the first and the last one.
_TIMES = os.environ.get("PYCNI_FAULTS", "")
ALL, BRIEF = _TIMES == "all", _TIMES == "last"
_TRIES = 5
_OF_VRFS = "/proc/sys/net/ipv4/tcp_l3mdev_accept"
_CONNTRACK = "/proc/sys/net/netfilter/nf_conntrack_"
_ADDRESSES = {CALM: "2", CUT: "3", DEAD: "4"}
_PORTS = {CALM: 8080, CUT: 9090, DEAD: 9090}


class Step(NamedTuple):
    """One plugin's part in an ADD or a DEL of the chain."""

    plugin: str
    verb: str


def step_of(part: str, verb: str) -> Step:
    """Return the call that runs a part of the chain: an IPAM plugin runs in that of the interface plugin."""
    return Step(called(part), verb)


def _stop_helpers() -> None:
    control.stop(control.find())


class World:
    """The usual network of both families, with `plugin` in it; two containers publish a port each."""

    def __init__(
        self,
        host: Host,
        backend: str,
        tally: dict[str, int] | None = None,
        plugin: str = scene.INTERFACE,
        zygote: Zygote | None = None,
    ) -> None:
        self.host = host
        # It forks the COLD calls of the host.
        self.zygote = zygote
        self.backend = backend
        self._chain = {conf["type"]: conf for conf in chain(plugin, backend)}
        self.plugins = tuple(self._chain)
        self._interface = next(name for name, conf in self._chain.items() if "ipam" in conf)
        # The number of faults tried, by what happened to the process.
        self.tally = {} if tally is None else tally
        self.results: dict[str, dict[str, Any]] = {}
        # What the worker that serves warm calls has served.
        self._served: set[Step] = set()
        warm.set_up(host.place, workers=1)
        _forget_flows_soon(host)
        prepare(host, plugin)
        self._is_reached_by_host = PLUGINS[plugin].reached_by_host
        self.sandboxes: dict[str, Sandbox] = {name: host.sandbox(name) for name in (CALM, CUT)}

    @cached_property
    def servers(self) -> list[warm_control.Running]:
        """The warm servers of the host, which has one after the first warm call."""
        return self.host.call(warm_control.find)

    def conf(self, plugin: str, name: str = "") -> dict[str, Any]:
        """Return the configuration of a plugin, for a container if one is named."""
        conf = dict(self._chain[plugin])
        if not name:
            conf.pop("runtimeConfig", None)
            return conf
        if name == CALM:
            conf |= second_keys(plugin)
        if plugin == scene.PORTS:
            conf["runtimeConfig"] = {"portMappings": [_mapping(name, "tcp"), _mapping(name, "udp")]}
        if plugin == self._interface and conf["ipam"] != ipam(scene.IPAM):
            # An IPAM plugin with fixed addresses needs others for each container.
            last = _ADDRESSES[name]
            conf["runtimeConfig"] = {"ips": [f"10.1.0.{last}/24", f"fd01::{last}/64"]}
        if self._follows_interface(plugin):
            conf["prevResult"] = self.results.get(name)
        return conf

    def _follows_interface(self, plugin: str) -> bool:
        return self.plugins.index(plugin) > self.plugins.index(self._interface)

    def call(self, plugin: str, verb: str, name: str, env: dict[str, str] | None = None) -> Answer:
        """Call one plugin for a container."""
        action = (env or {}).get(VARIABLE, TELL).split(" ")[0]
        if action != TELL:
            self.tally[action] = self.tally.get(action, 0) + 1
        conf = self.conf(plugin, name)
        answer = self.host.plugin(
            plugin, verb, conf, netns=f"/run/netns/{name}", container_id=name, env=env, timeout_s=120
        )
        if (env or {}).get("PYCNI_WARM") != "off":
            # A worker ends after a call that fails.
            self._served = self._served | {Step(plugin, verb)} if answer.ok else set()
        if (plugin, verb) == (self._interface, "ADD") and answer.ok:
            self.results[name] = answer.json
        return answer

    def add(self, name: str, before: str = "") -> None:
        """Attach a container, by the plugins of the chain that come before one, or by all."""
        for plugin in _until(self.plugins, before):
            self.call(plugin, "ADD", name).must()

    def delete(self, name: str, before: str = "") -> None:
        """Detach a container, however much of it exists."""
        for plugin in _until(self.plugins[::-1], before):
            self.call(plugin, "DEL", name).must()

    def collect(self, valid: Sequence[str]) -> None:
        """Call GC of each plugin."""
        keys = {"cni.dev/valid-attachments": [{"containerID": each, "ifname": "eth0"} for each in valid]}
        for plugin in self.plugins[::-1]:
            self.host.plugin(plugin, "GC", self.conf(plugin) | keys, container_id="", ifname="").must()

    def prepare(self, step: Step) -> None:
        """Make the calls that come before a step, for the container whose calls are cut short.

        No helper runs then, so that each step that needs one starts it.
        """
        self.stop_helpers()
        if step.verb == "DEL":
            self.add(CUT)
            self.delete(CUT, step.plugin)
        else:
            self.add(CUT, step.plugin)

    def prepare_by_all(self, step: Step) -> None:
        """Attach the container by all plugins, and take back what a call of the step would not find."""
        self.add(CUT)
        self.delete(CUT, step.plugin)
        if step.verb == "ADD":
            self.delete_one(step.plugin, CUT)

    def stop_helpers(self) -> None:
        """Stop the helpers of the host."""
        folder = Path(f"/proc/{self.host.pid}/root{client.FOLDER}")
        if folder.is_dir() and any(folder.iterdir()):
            self.host.call(_stop_helpers)

    def prime(self, step: Step) -> None:
        """Fill the caches of a warm worker that has not served the step, so that it works as the last one."""
        if step.verb == "ADD" and step not in self._served:
            self.call(step.plugin, "ADD", CUT).must()
            self.delete_one(step.plugin, CUT)

    def positions(self, step: Step, env: dict[str, str] | None = None) -> list[Fault]:
        """Return the fault points that a step passes. The container is not attached before and after.

        `env` {} stands for a warm call, by a worker that has served the same step.
        """
        self.prepare(step)
        if env == {}:
            self.prime(step)
        met = self._met(step, env)
        # Another worker may have served this time.
        for _ in range(_TRIES if env == {} and step.verb == "ADD" else 0):
            self.delete_one(step.plugin, CUT)
            before, met = met, self._met(step, env)
            if met == before:
                break
        self.delete(CUT)
        return choose(met)

    def _met(self, step: Step, env: dict[str, str] | None) -> list[str]:
        answer = self.call(step.plugin, step.verb, CUT, Fault(TELL, "").env | (env or {}))
        answer.must()
        assert answer.stderr, "it comes by no point"
        return list_met(answer)

    def call_at(self, step: Step, fault: Fault, env: dict[str, str]) -> Answer:
        """Call with a fault, again if another worker has served."""
        for left in reversed(range(_TRIES)):
            if env == {}:
                self.prime(step)
            answer = self.call(step.plugin, step.verb, CUT, fault.env | env)
            if fault.was_met(answer) or env or step.verb != "ADD" or not left:
                break
            self.delete_one(step.plugin, CUT)
            self.forget_worker()
        return answer

    def forget_worker(self) -> None:
        """Note that the worker which has served the last call is gone."""
        self._served = set()

    def delete_one(self, plugin: str, name: str) -> None:
        """Call DEL of one plugin for a container."""
        self.call(plugin, "DEL", name).must()

    def reaches(self, name: str) -> bool:
        """Return whether a server in the container is reached directly and by its published port.

        In a network whose containers the host does not reach, the container asks itself.
        """
        address = str(self.results[name]["ips"][0]["address"]).split("/")[0]
        if Path(_OF_VRFS).exists():
            # The server is bound to no link. Without it, it hears nothing from one in a VRF.
            self.sandboxes[name].run(["sh", "-c", f"echo 1 > {_OF_VRFS}"])
        with self.sandboxes[name].serve(80):
            if not self._is_reached_by_host:
                return self.sandboxes[name].reaches(address, 80, timeout_s=5)
            places = [(address, 80), ("10.1.0.1", _PORTS[name])]
            return all(self.host.reaches(*each, timeout_s=5) for each in places)

    def renew(self, name: str, *, settled: bool = True) -> None:
        """Remove a container's namespace and make an empty one of the name.

        With `settled=False` a paused call may keep the old one.
        """
        self.sandboxes[name].delete(settled=settled)
        self.sandboxes[name] = self.host.sandbox(name)

    def is_calm(self) -> bool:
        """Return whether the other container is as its ADD has left it, and reached."""
        checks = {"prevResult": self.results[CALM]}
        for plugin in self.plugins:
            conf = self.conf(plugin, CALM) | checks
            self.host.plugin(plugin, "CHECK", conf, netns=self.sandboxes[CALM], container_id=CALM).must()
        return self.reaches(CALM)

    def left(self, before: Snapshot) -> list[str]:
        """List what is new since the snapshot, and what is missing."""
        return before.differences(self.host.snapshot())


def choose(met: Sequence[str]) -> list[Fault]:
    """Return the fault points of a call that are to be tried, of all that it has met in this order."""
    found = [Fault("", point, int(number)) for point, number in map(str.split, met)]
    last = {each.point: each.number for each in found}
    return [
        each for each in found if ALL or each.number == last[each.point] or (each.number == 1 and not BRIEF)
    ]


def assert_none(found: Mapping[Fault, Sequence[str]]) -> None:
    """Fail the test, naming all that went wrong and where, unless nothing did."""
    assert found, "there is no point on the way"
    wrong = [f"{fault.point} {fault.number}: {each}" for fault, told in found.items() for each in told]
    assert not wrong, "\n".join(wrong)


def _forget_flows_soon(host: Host) -> None:
    """Make the kernel forget TCP connections at their end, and what is neither TCP nor UDP at once.

    Otherwise portmap searches the connections of all earlier steps: 5 ms of CPU time for each family. The
    first search removes what the kernel is to forget, and the next one finds none.
    """
    ends = dict.fromkeys(["tcp_timeout_time_wait", "tcp_timeout_close", "generic_timeout"], 0)
    files = {f"{_CONNTRACK}{name}": seconds for name, seconds in (ends | {"tcp_timeout_last_ack": 1}).items()}
    # The first rule on a machine loads the module, and with it the settings.
    host.run(["sh", "-c", "; ".join(f"[ ! -e {file} ] || echo {n} > {file}" for file, n in files.items())])


def _mapping(name: str, protocol: str) -> dict[str, object]:
    return {"hostPort": _PORTS[name], "containerPort": 80, "protocol": protocol}


def _until(plugins: Sequence[str], before: str) -> Sequence[str]:
    return plugins[: plugins.index(before)] if before else plugins


@pytest.fixture
def world(
    faulty_bindir: Path,
    faulty_zygote: Zygote,
    backend: str,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> Iterator[World]:
    """Return a host on which nothing was ever attached; its network has the test's parameter "plugin"."""
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    plugin = request.node.callspec.params.get("plugin", scene.INTERFACE)
    with Host(faulty_bindir, faulty_zygote) as host:
        made = World(host, backend, plugin=plugin, zygote=faulty_zygote)
        record_property("figures", ("faults", "times that a call was cut short", made.tally))
        yield made


# One more such host, to try something out.
another_world = world


@pytest.fixture
def busy_world(world: World) -> World:
    """Return a host that has one container, and has had the other one."""
    world.add(CALM)
    world.add(CUT)
    world.delete(CUT)
    return world
