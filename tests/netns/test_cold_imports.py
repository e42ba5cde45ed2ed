"""What a cold call imports: the plugin that it is, the library's parts that the verb needs, nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.state import executables
from cni.testing import Host, make_bindir, why_no_namespaces
from plugin_table import declared, packages

if TYPE_CHECKING:
    from cni.testing import Sandbox

pytestmark = pytest.mark.quick

Call = tuple[str, str, str]
Modules = frozenset[str]

BOTH = ("nftables", "iptables")
CALLS: list[Call] = [
    *((plugin, "VERSION", "nftables") for plugin in ("loopback", "bridge", "portmap")),
    *(("loopback", verb, "nftables") for verb in ("ADD", "DEL")),
    *(("bridge", verb, backend) for verb in ("ADD", "DEL") for backend in BOTH),
    *(("portmap", verb, backend) for verb in ("ADD", "DEL") for backend in BOTH),
]
NEVER = {
    "argparse", "asyncio", "concurrent", "email", "http", "importlib.metadata", "logging", "multiprocessing",
    "netaddr", "pickle", "pyroute2", "rich", "ssl", "tempfile", "typer", "unittest",
    "cni.cli", "cni.state.executables", "cni.runtime", "cni.testing", "cni.warm",
}  # fmt: skip
PLUGINS = {
    "loopback": {"cni_loopback"},
    "bridge": {"cni_bridge", "cni_host_local_ipam"},
    "portmap": {"cni_portmap"},
}
# A little more than there is: a door that opens too early brings dozens.
MOST = {"VERSION": 215, "ADD": 265, "DEL": 260}
_TELL = """\
import os
def exit(status, leave=os._exit):
    os.write(2, "\\n".join(sys.modules).encode())
    leave(status)
os._exit = exit
from cni.multicall import main
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[Call, Modules]:
    """Make every call in a process of its own and give what it has loaded when it ends."""
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    bindir = make_bindir(tmp_path_factory.mktemp("cold"), packages(declared()))
    script = (bindir / "bridge").read_text().replace("from cni.multicall import main\n", _TELL)
    executables.put(bindir, packages(declared()), script)
    with Host(bindir) as host:
        found: dict[Call, Modules] = {}
        for backend in ("iptables", "nftables"):
            sandbox = host.sandbox(backend)
            # The first ADD on a host makes what all others find there.
            _call_all(host, sandbox, backend)
            found |= _call_all(host, sandbox, backend)
        return found


def _call_all(host: Host, sandbox: Sandbox, backend: str) -> dict[Call, Modules]:
    found: dict[Call, Modules] = {}

    def call(plugin: str, verb: str, conf: dict[str, Any]) -> Any:
        answer = host.plugin(plugin, verb, conf, netns=sandbox)
        found[plugin, verb, backend] = frozenset(answer.stderr.splitlines())
        return answer.must()

    loopback, bridge, portmap = _configurations(backend)
    for plugin in ("loopback", "bridge", "portmap"):
        call(plugin, "VERSION", {})
    call("loopback", "ADD", loopback)
    previous = {"prevResult": call("bridge", "ADD", bridge)}
    call("portmap", "ADD", portmap | previous)
    call("portmap", "DEL", portmap | previous)
    call("bridge", "DEL", bridge | previous)
    call("loopback", "DEL", loopback)
    return found


def _configurations(backend: str) -> list[dict[str, Any]]:
    common = {"cniVersion": "1.0.0", "name": "net"}
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.31.0.0/24"}]]}
    port = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
    return [
        {**common, "type": "loopback"},
        {
            **common,
            "type": "bridge",
            "isGateway": True,
            "ipMasq": True,
            "ipMasqBackend": backend,
            "ipam": ipam,
        },
        {**common, "type": "portmap", "backend": backend, "runtimeConfig": {"portMappings": [port]}},
    ]


def _of(modules: Modules, *packages: str) -> set[str]:
    return {each for each in modules if any(each == name or each.startswith(f"{name}.") for name in packages)}


@pytest.mark.parametrize("call", CALLS, ids="-".join)
def test_a_cold_call_loads_nothing_that_it_does_not_use(loaded: dict[Call, Modules], call: Call) -> None:
    plugin, verb, backend = call
    modules = loaded[call]
    assert "cni.skel" in modules
    assert _of(modules, *NEVER) == set()
    assert {each for each in modules if each.startswith("cni_") and "." not in each} <= PLUGINS[plugin]
    assert len(modules) <= MOST[verb], sorted(modules)
    firewall = {each.removeprefix("cni.firewall.") for each in _of(modules, "cni.firewall")}
    if verb == "VERSION" or plugin == "loopback":
        assert firewall <= {"cni.firewall", "intents", "select"}
    if verb == "VERSION":
        assert _of(modules, "cni_host_local_ipam", "ctypes") == set()
    if verb == "ADD":
        other = {"nftables": "iptables", "iptables": "nftables"}[backend]
        assert {each for each in firewall if each.startswith(other)} == set()
    if backend == "nftables":
        assert _of(modules, "subprocess", "shutil") == set()
