"""The way of a published port through the backend iptables takes few functions and changes of the file."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from cni.state import executables
from cni.testing import Host, make_bindir, why_no_namespaces
from plugin_table import ROOT, declared, packages
from tests.support import scene

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOMS = ("cni/firewall/", "cni/hostports/", "plugins/portmap/")
# In release 0.1.0 a reader met 99 functions in 42 stops, 26 of them in a file that was left before.
MOST_FUNCTIONS, MOST_STOPS, MOST_TURNS_BACK = 99, 21, 6
_TRACE = """\
import os, sys
_seen = {}
def _note(frame, event, _arg):
    if event == "call":
        _seen.setdefault(frame.f_code)
def exit(status, leave=os._exit):
    sys.setprofile(None)
    if os.environ.get("TRACE_TO"):
        with open(os.environ["TRACE_TO"], "w") as out:
            out.writelines(f"{each.co_filename}\\t{each.co_firstlineno}\\n" for each in _seen)
    leave(status)
os._exit = exit
from cni.multicall import main
sys.setprofile(_note)
"""


class Step(NamedTuple):
    """A function that a call enters for the first time."""

    file: str
    name: str


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> list[Step]:
    """Return the functions that the second ADD on a host enters, each once, in the order of first calls."""
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    folder = tmp_path_factory.mktemp("path")
    bindir = make_bindir(folder, packages(declared()))
    script = (bindir / scene.PORTS).read_text().replace("from cni.multicall import main\n", _TRACE)
    executables.put(bindir, packages(declared()), script)
    with Host(bindir) as host:
        _publish(host, "c1", 8080, {})
        _publish(host, "c2", 8081, {"TRACE_TO": f"{folder}/trace"})
    return _read((folder / "trace").read_text())


def _publish(host: Host, name: str, port: int, env: dict[str, str]) -> None:
    sandbox = host.sandbox(name)
    common = {"cniVersion": "1.0.0", "name": "net"}
    ipam = {"type": scene.IPAM, "subnet": "10.9.0.0/24"}
    conf: dict[str, Any] = {"type": scene.INTERFACE, "bridge": "br0", "isGateway": True, "ipam": ipam}
    result = host.plugin(scene.INTERFACE, "ADD", common | conf, netns=sandbox, container_id=name).must()
    mapping = {"hostPort": port, "containerPort": 80, "protocol": "tcp"}
    conf = {"type": scene.PORTS, "backend": "iptables", "runtimeConfig": {"portMappings": [mapping]}}
    conf |= common | {"prevResult": result}
    host.plugin(scene.PORTS, "ADD", conf, netns=sandbox, container_id=name, env=env).must()


def _read(trace: str) -> list[Step]:
    """Return the steps of a trace that are functions of these rooms: neither modules nor classes."""
    steps = []
    names: dict[str, dict[int, str]] = {}
    for line in trace.splitlines():
        file, number = line.split("\t")
        relative = file.removeprefix(f"{ROOT}/")
        if relative.startswith(ROOMS):
            known = names.get(relative) or names.setdefault(relative, _functions(Path(file)))
            if int(number) in known:
                steps.append(Step(relative, known[int(number)]))
    return steps


def _functions(path: Path) -> dict[int, str]:
    """Return the functions of a file by the first line of each, which may be a decorator's."""
    return {
        min([node.lineno, *(each.lineno for each in node.decorator_list)]): node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }


def _stops(path: Sequence[Step]) -> list[str]:
    files = [each.file for each in path]
    return [file for before, file in zip(["", *files], files, strict=False) if file != before]


def test_the_way_of_a_published_port_is_short(path: list[Step]) -> None:
    stops = _stops(path)
    assert {"add", "claim", "port_forward", "make_chain"} <= {each.name for each in path}
    assert len(path) <= MOST_FUNCTIONS, path
    assert len(stops) <= MOST_STOPS, stops
    assert len(stops) - len(set(stops)) <= MOST_TURNS_BACK, stops
