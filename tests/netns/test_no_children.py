"""The effects of a call, counted: no child process on the hot path, few messages, few settings."""

from __future__ import annotations

import shutil
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import Host, warm, why_no_namespaces
from cni.testing.faults import TELL, Fault, list_met
from plugin_table import IPAM
from tests.support import scene
from tests.support.subjects import BACKENDS, PLUGINS, chain, ipam, prepare, read_data, subjects
from tests.warm.calls import in_order

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cni.testing import Sandbox

_IPAM = {"type": scene.IPAM, "subnet": "10.1.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}
# An IPAM plugin of its own choice of addresses may bring IPv6, whose rules iptables-nft makes by its program.
SUBJECTS = [each for each in subjects() if PLUGINS[each].kind != IPAM]
CHILDREN = {"process.started", "process.ended"}


class Chain:
    """The usual network with a plugin in it and one family, as a runtime calls it for one container."""

    def __init__(
        self, host: Host, backend: str, env: dict[str, str] | None = None, subject: str = scene.INTERFACE
    ) -> None:
        prepare(host, subject)
        self.host = host
        confs = chain(subject, backend, full=False)
        for conf in confs:
            if conf.get("ipam") == ipam(scene.IPAM):
                conf["ipam"] = _IPAM
        self._confs = {conf["type"]: conf for conf in confs}
        self._env = env or {}
        self._result: dict[str, Any] = {}

    def count(self, verb: str, sandbox: Sandbox) -> dict[str, Counter[str]]:
        """Call each plugin and count by plugin how often it came by each point."""
        order = in_order(verb, [*self._confs])
        return {plugin: self.count_one(plugin, verb, sandbox) for plugin in order}

    def count_one(self, plugin: str, verb: str, sandbox: Sandbox) -> Counter[str]:
        """Call one of them."""
        env = Fault(TELL, "").env | self._env
        conf = self._confs[plugin] | ({"prevResult": self._result} if self._result else {})
        answer = self.host.plugin(plugin, verb, conf, netns=sandbox, container_id=sandbox.name, env=env)
        result = answer.must()
        if verb == "ADD" and "ipam" in conf:
            self._result = result
        return Counter(each.split(" ")[0] for each in list_met(answer))


@pytest.fixture
def host(faulty_bindir: Path) -> Iterator[Host]:
    """Return a host whose plugins tell what they come by."""
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    with Host(faulty_bindir) as host:
        warm.set_up(host.place, workers=1)
        yield host


# What the first containers of a host make for all: bridge, base rules, shared chains.
FIRST = 2
TRIES = 5
# Of a plugin without costs.json: changes told to the kernel by rtnetlink, and settings written.
MOST = {"ADD": [6, 3], "DEL": [1, 0]}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_call_starts_no_process_and_says_little_to_the_kernel(
    host: Host, subject: str, backend: str
) -> None:
    for number in range(FIRST):
        chain, sandbox = Chain(host, backend, subject=subject), host.sandbox(f"first{number}")
        chain.count("ADD", sandbox)
        chain.count("DEL", sandbox)
    for number in range(TRIES):
        chain, sandbox = Chain(host, backend, subject=subject), host.sandbox(f"c{number}")
        calls = {verb: chain.count(verb, sandbox) for verb in ("ADD", "DEL")}
        if not any(CHILDREN & set(met) for met in calls["ADD"].values()):
            break
        # A worker that was new has asked the program once whether what is shared is right.
    for verb, of_verb in calls.items():
        for plugin, met in of_verb.items():
            assert met, f"{plugin} {verb} comes by no point"
            assert not CHILDREN & set(met), f"{plugin} {verb} started a process: {met}"
            changes, settings = (read_data(plugin, "costs.json") or MOST)[verb]
            assert met["netlink.changed"] <= changes, (plugin, verb, met)
            assert met["sysctl.written"] <= settings, (plugin, verb, met)
            assert met["nftables.committed"] == bool(PLUGINS[plugin].backend_key), (plugin, verb, met)


def test_the_first_container_of_an_iptables_host_starts_some(host: Host) -> None:
    """So the points tell of them."""
    assert set(Chain(host, "iptables").count("ADD", host.sandbox("c1"))[scene.PORTS]) >= CHILDREN


@pytest.fixture
def copies(faulty_bindir: Path, tmp_path: Path) -> Path:
    """Return the executables as an image has them whose layers know no hard links."""
    folder = tmp_path / "copies"
    shutil.copytree(faulty_bindir, folder)
    assert len({path.stat().st_ino for path in folder.iterdir()}) == len(list(folder.iterdir()))
    return folder


@pytest.mark.parametrize("env", [{}, {"PYCNI_WARM": "off"}], ids=["warm", "cold"])
def test_ipam_of_a_copy_runs_in_the_same_process(copies: Path, env: dict[str, str]) -> None:
    with Host(copies) as host:
        warm.set_up(host.place, workers=1)
        Chain(host, "nftables", env).count_one(scene.INTERFACE, "ADD", host.sandbox("first"))
        met = Chain(host, "nftables", env).count_one(scene.INTERFACE, "ADD", host.sandbox("c1"))
        assert met["answer.written"] == 2
        assert not CHILDREN & set(met)
        # One byte more, and it is another program.
        host.run(["sh", "-c", f"printf x >> {copies}/{scene.IPAM}"])
        met = Chain(host, "nftables", env).count_one(scene.INTERFACE, "ADD", host.sandbox("c2"))
        assert set(met) >= CHILDREN
