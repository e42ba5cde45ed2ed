"""A cold call imports its plugin and the parts of the library that the verb needs, nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.state import executables
from cni.testing import Host, make_bindir, why_no_namespaces
from cni.testing.zygote import Zygote
from plugin_table import Declared, declared, packages
from tests.support import scene
from tests.support.subjects import (
    BACKENDS,
    PLUGINS,
    asks,
    called,
    chain,
    configuration,
    prepare,
    subjects,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cni.testing import Answer, Sandbox

pytestmark = pytest.mark.quick


Call = tuple[str, str, str]
Modules = frozenset[str]


def _backends(plugin: str) -> tuple[str, ...]:
    """Return the backends by which calls differ."""
    return BACKENDS if PLUGINS[called(plugin)].backend_key else BACKENDS[:1]


CALLED = [*scene.CHAIN, *(each for each in subjects() if each not in scene.CHAIN)]
CALLS: list[Call] = [
    (plugin, verb, backend) for plugin in CALLED for verb in ("ADD", "DEL") for backend in _backends(plugin)
]
NEVER = {
    "argparse", "asyncio", "concurrent", "email", "http", "importlib.metadata", "logging", "multiprocessing",
    "netaddr", "pickle", "pyroute2", "rich", "ssl", "tempfile", "typer", "unittest",
    "cni.cli", "cni.state.executables", "cni.runtime", "cni.testing", "cni.warm",
}  # fmt: skip
# A few more than today: an import that comes too early brings dozens.
MOST = {"VERSION": 215, "ADD": 285, "DEL": 275}
# What a call without rules may load of cni.firewall.
FACADE = {"cni.firewall", "intents", "select"}
_TELL = """\
import os
def exit(status, leave=os._exit):
    os.write(2, "\\n".join(sys.modules).encode())
    leave(status)
os._exit = exit
from cni.multicall import main
"""


class Loaded:
    """The modules that calls have loaded at their end. Each call is a process of its own.

    The executables of `bindir` print them. The host's own calls are forked, which costs a tenth.
    """

    def __init__(self, host: Host, bindir: Path) -> None:
        self._host = host
        self._bindir = bindir
        self._chains: dict[str, dict[Call, Modules]] = {}

    def by_version(self, plugin: str) -> Modules:
        """Return the modules that a call of VERSION has loaded."""
        return _told(self._host.plugin(plugin, "VERSION", configuration(plugin), bindir=self._bindir))

    def modules(self, call: Call) -> Modules:
        """Return the modules that a call has loaded. The first call of a chain makes all calls of it."""
        plugin, _, _ = call
        subject = scene.INTERFACE if plugin in scene.CHAIN else plugin
        if subject not in self._chains:
            self._chains[subject] = self._run(subject)
        return self._chains[subject][call]

    def _run(self, subject: str) -> dict[Call, Modules]:
        found: dict[Call, Modules] = {}
        prepare(self._host, subject)
        for backend in reversed(_backends(subject)):
            sandbox = self._host.sandbox(f"{backend}-{subject}")
            # The first ADD on a host makes what all others find there.
            _call_all(self._host, sandbox, subject, backend)
            found |= _call_all(self._host, sandbox, subject, backend, self._bindir)
        return found


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    """Yield the modules that calls load on one host."""
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    bindir = make_bindir(tmp_path_factory.mktemp("cold"), packages(declared()))
    script = (bindir / scene.INTERFACE).read_text().replace("from cni.multicall import main\n", _TELL)
    telling = tmp_path_factory.mktemp("telling")
    executables.put(telling, packages(declared()), script)
    with Zygote(bindir) as zygote, Host(bindir, zygote) as host:
        yield Loaded(host, telling)


def _told(answer: Answer) -> Modules:
    answer.must()
    return frozenset(answer.stderr.splitlines())


def _call_all(
    host: Host, sandbox: Sandbox, subject: str, backend: str, bindir: Path | None = None
) -> dict[Call, Modules]:
    """Call the plugins of a chain, and return what the calls that count have loaded.

    In the usual chain all calls count, in another one those of the plugin that it has more. The executables
    of `bindir` make these.
    """
    counting = set(scene.CHAIN) if subject == scene.INTERFACE else {called(subject)}
    found: dict[Call, Modules] = {}

    def call(plugin: str, verb: str, conf: dict[str, Any]) -> Any:
        program = bindir if plugin in counting else None
        answer = host.plugin(plugin, verb, conf, netns=sandbox, bindir=program)
        answer.must()
        if program:
            found[plugin if subject == scene.INTERFACE else subject, verb, backend] = _told(answer)
        return answer.json

    confs = chain(subject, backend, full=False)
    previous: dict[str, Any] = {}
    for conf in confs:
        result = call(conf["type"], "ADD", conf | previous)
        previous = previous or ({"prevResult": result} if "ipam" in conf else {})
    for conf in reversed(confs):
        call(conf["type"], "DEL", conf | previous)
    return found


def _packages(plugin: str) -> set[str]:
    """Return the packages that a call of a plugin may load: its own and those of the plugins that it runs."""
    own = {plugin, called(plugin)} | (asks(plugin) if called(plugin) == plugin else set())
    return {PLUGINS[each].package for each in own}


def _of(modules: Modules, *packages: str) -> set[str]:
    return {each for each in modules if any(each == name or each.startswith(f"{name}.") for name in packages)}


def _assert_needed(modules: Modules, own: set[str], verb: str) -> None:
    """Fail the test if modules are loaded that no call needs, or plugins other than these packages."""
    assert "cni.skel" in modules
    assert _of(modules, *NEVER) == set()
    assert {each for each in modules if each.startswith("cni_") and "." not in each} == own
    assert len(modules) <= MOST[verb], sorted(modules)


def _firewall(modules: Modules) -> set[str]:
    return {each.removeprefix("cni.firewall.") for each in _of(modules, "cni.firewall")}


# The parameter is no name, so VERSION of a plugin that this kernel lacks a feature for runs on this kernel.
@pytest.mark.parametrize("plugin", PLUGINS.values(), ids=PLUGINS)
def test_version_loads_nothing_that_it_does_not_use(loaded: Loaded, plugin: Declared) -> None:
    modules = loaded.by_version(plugin.names[0])
    _assert_needed(modules, {plugin.package}, "VERSION")
    assert _firewall(modules) <= FACADE
    assert _of(modules, "ctypes") == set()


@pytest.mark.parametrize("call", CALLS, ids="-".join)
def test_a_cold_call_loads_nothing_that_it_does_not_use(loaded: Loaded, call: Call) -> None:
    plugin, verb, backend = call
    modules = loaded.modules(call)
    _assert_needed(modules, _packages(plugin), verb)
    if not PLUGINS[called(plugin)].backend_key:
        assert _firewall(modules) <= FACADE
    if verb == "ADD":
        other = {"nftables": "iptables", "iptables": "nftables"}[backend]
        assert {each for each in _firewall(modules) if each.startswith(other)} == set()
