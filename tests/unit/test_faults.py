"""The points at which tests end processes: all are listed, all are met, and no installed suite heeds them."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cni import faults
from cni.state import executables
from cni.testing.faults import ARMING, VARIABLE
from plugin_table import ROOT, declared, packages
from tests.support import scene

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOURCES = [path for folder in ("cni", "plugins") for path in sorted((ROOT / folder).rglob("*.py"))]


def named(source: str) -> Iterator[str]:
    """Yield the argument of each `point(...)` in a source."""
    if "point" not in source:
        return
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"point", "faults.point"}:
            yield ast.unparse(node.args[0]).strip("'")


def test_the_points_in_the_sources_are_those_of_the_list() -> None:
    found = {
        name
        for path in SOURCES
        if "tests" not in path.relative_to(ROOT).parts
        for name in named(path.read_text())
    }
    assert found == set(faults.POINTS)


def test_only_the_testing_package_arms() -> None:
    arming = [path for path in SOURCES if "faults.arm" in path.read_text()]
    assert {path.relative_to(ROOT).parts[:2] for path in arming} == {("cni", "testing")}


def test_a_point_costs_next_to_nothing() -> None:
    """No look at the environment, no file: nothing but a call that finds one name to be None."""
    code = faults.point.__code__
    assert code.co_names == ("_meet",)
    assert len(code.co_code) < 60


@pytest.mark.parametrize("is_armed", [True, False])
def test_an_installed_program_cannot_be_switched_on(tmp_path: Path, *, is_armed: bool) -> None:
    """The program of an installed suite differs from that of the tests by the lines that arm it."""
    table = tmp_path / "table.json"
    table.write_text(json.dumps(packages(declared())))
    paths = [str(ROOT), *map(str, sorted(ROOT.glob("plugins/*"))), *libraries()]
    text = executables.entry_script(paths, str(table), str(tmp_path))
    if is_armed:
        text = text.replace("from cni.program.entry", f"{ARMING}from cni.program.entry")
    executables.put(tmp_path, ["pycni"], text)
    assert was_killed(tmp_path / "pycni", tmp_path) is is_armed


def test_the_bundle_cannot_be_switched_on(bundle: Path, tmp_path: Path) -> None:
    assert not list(bundle.rglob("testing"))
    assert not was_killed(bundle / "pycni", tmp_path)


def libraries() -> list[str]:
    return [path for path in sys.path if path.endswith("-packages")]


def was_killed(program: Path, folder: Path) -> bool:
    """Return whether an ADD of host-local was killed. If it was not, it has succeeded."""
    ipam = {"type": scene.IPAM, "subnet": "10.1.0.0/24", "dataDir": str(folder / "data")}
    env = {
        "PYCNI_NAME": scene.IPAM, "PYCNI_EXECUTABLE": str(folder / scene.IPAM), "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/none", "CNI_IFNAME": "eth0",
        "CNI_PATH": str(folder), VARIABLE: "kill store.written 1 x",
    }  # fmt: skip
    conf = json.dumps({"cniVersion": "1.1.0", "name": "net", "type": scene.IPAM, "ipam": ipam})
    done = subprocess.run([program], input=conf, env=env, capture_output=True, text=True, check=False)
    assert done.returncode in {0, -9}, done
    return done.returncode == -9
