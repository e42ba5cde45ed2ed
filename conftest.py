"""Fixtures for all tests: the plugins' executables, and a host of their own to run them on.

Tests of plugins run in several modes: `cold`, each call a process of its own; `warm`, served by workers
that serve many calls; `single`, served by workers that serve one. PYCNI_MODE chooses ("warm,single").
PYCNI_BINDIR runs the same tests in the same modes against plugins that are installed.
"""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import Host, make_bindir, warm, why_no_namespaces
from cni.testing.executables import make_warm_bindir
from cni.warm import connection
from plugin_table import ROOT, declared, packages

if TYPE_CHECKING:
    from collections.abc import Iterator


pytest_plugins = ["tests.support.costs", "tests.support.selection"]

COLD, WARM, SINGLE = "cold", "warm", "single"
# What they call is tested cold elsewhere, and would take minutes here.
MANY_CALLS = {"test_firewalld.py", "test_pycni_gc.py", "test_pycni_repair.py", "test_upgrade.py"}
SETTINGS: dict[str, dict[str, int]] = {WARM: {}, SINGLE: {"calls": 1}}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test once for each mode of its file."""
    if "mode" in metafunc.fixturenames:
        metafunc.parametrize("mode", _modes(metafunc.definition.path), indirect=True, scope="session")


def _modes(path: Path) -> list[str]:
    asked = os.environ.get("PYCNI_MODE")
    if path.name == "test_every_plugin.py":
        return asked.split(",") if asked else [COLD, WARM, SINGLE]
    if ROOT / "plugins" in path.parents:
        return asked.split(",") if asked else [COLD, WARM]
    return [WARM] if path.name in MANY_CALLS else [COLD]


@pytest.fixture(scope="session")
def mode(request: pytest.FixtureRequest) -> str:
    """Give how calls are served: cold, warm or single."""
    return str(request.param)


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the compiled launcher; the compiled connection.c is in the same folder."""
    program = tmp_path_factory.mktemp("launcher") / "launcher"
    sources = map(str, (ROOT / "build/launcher").glob("*.c"))
    command = [str(ROOT / "build/launcher/compile.sh"), str(program), *sources]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"the launcher needs a C compiler that makes static programs: {done.stderr}")
    library = program.with_name(connection.FILE)
    sources = map(str, (ROOT / "build/connection").glob("*.c"))
    subprocess.run([ROOT / "build/connection/compile.sh", library, *sources], check=True)
    return program


@pytest.fixture(scope="session")
def bindir(mode: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Give a folder with an executable for every plugin."""
    if "PYCNI_BINDIR" in os.environ:
        return Path(os.environ["PYCNI_BINDIR"])
    folder, table = tmp_path_factory.mktemp(mode), packages(declared())
    if mode == COLD:
        return make_bindir(folder, table)
    return make_warm_bindir(folder, table, request.getfixturevalue("launcher"))


@pytest.fixture(scope="session")
def bundle() -> Path:
    """Give the frozen suite, made of the sources as they are now."""
    command = ["/usr/bin/env", "make", "--silent", "bundle"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(done.stdout + done.stderr)
    return ROOT / "dist/bundle"


@pytest.fixture
def host(bindir: Path, mode: str) -> Iterator[Host]:
    """Give a host in private namespaces; the test is skipped where none can be made."""
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    with Host(bindir) as host:
        if mode in SETTINGS:
            warm.set_up(host.place, **SETTINGS[mode])
        elif "PYCNI_BINDIR" in os.environ:
            warm.switch_off(host.place)
        yield host


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Tell how much was tried where that is what a test is about: fuzzing, churn."""
    sums: dict[str, Counter[str]] = {}
    for report in terminalreporter.getreports("passed"):
        for kind, area, figures in (value for name, value in report.user_properties if name == "figures"):
            sums.setdefault(f"{kind}, {area}", Counter()).update(figures)
    for what, figures in sorted(sums.items()):
        told = ", ".join(f"{number:g} {name}" for name, number in figures.items())
        terminalreporter.write_line(f"{what}: {told}")
