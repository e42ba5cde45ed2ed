"""Fixtures for all tests: the plugins' executables, and a private host to call them on.

Tests run in one mode or in several. `cold`: each call is a process of its own. `warm`: workers serve many
calls. `single`: each worker serves one call. The tests in a plugin's folder run cold and warm, all others
cold; the mark `modes` changes that for a file. `modes("warm")` is for files whose tests make many calls that
are tested cold elsewhere: a cold call costs 0.1 s. With --brief the tests in a plugin's folder run warm
only, and no test runs with workers of a single call. PYCNI_MODE chooses other modes for tests that run in
several ("warm,single"). PYCNI_BINDIR runs the same tests against plugins that are installed. PYCNI_LAUNCHER
is a launcher that is already compiled.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from cni.testing import Host, make_bindir, warm, why_no_namespaces
from cni.testing.executables import make_warm_bindir
from cni.testing.server_zygote import ServerZygote
from cni.testing.zygote import Zygote
from plugin_table import ROOT, declared, packages
from tests.support.launcher import compile_launcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


pytest_plugins = [
    "tests.support.costs",
    "tests.support.faulty",
    "tests.support.machine",
    "tests.support.memory",
    "tests.support.selection",
    "tests.support.kernel",
]

# On a busy machine the time of an example says nothing about the tested code.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

COLD, WARM, SINGLE = "cold", "warm", "single"
# Most tests make one call at a time. A worker that is forked for nothing costs 5 ms of CPU on each host.
SETTINGS: dict[str, dict[str, int]] = {WARM: {"workers": 1}, SINGLE: {"calls": 1}}


def pytest_configure(config: pytest.Config) -> None:
    """Prepare the process for its tests."""
    if config.getoption("brief"):
        os.environ.setdefault("PYCNI_FAULTS", "last")
    # What collecting tests makes stays, and each look of the garbage collector at it costs more.
    gc.disable()
    # A shell starts its background commands so that this signal is ignored, and all programs inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Let collections look at new objects only: in a forked process looking copies memory."""
    gc.freeze()
    gc.enable()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test once for each mode of its file."""
    if "mode" in metafunc.fixturenames:
        metafunc.parametrize("mode", _modes(metafunc.definition), indirect=True, scope="session")


def _modes(test: pytest.Item) -> list[str]:
    is_brief = test.config.getoption("brief")
    modes = [COLD]
    if ROOT / "plugins" in test.path.parents:
        modes = [WARM] if is_brief else [COLD, WARM]
    if mark := test.get_closest_marker("modes"):
        modes = [each for each in mark.args if not (is_brief and each == SINGLE)]
    chosen = os.environ.get("PYCNI_MODE")
    return chosen.split(",") if chosen and len(modes) > 1 else modes


@pytest.fixture(scope="session")
def mode(request: pytest.FixtureRequest) -> str:
    """Return the mode: cold, warm or single."""
    return str(request.param)


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the launcher, compiled from the current sources; the library of workers is beside it."""
    if "PYCNI_LAUNCHER" in os.environ:
        return Path(os.environ["PYCNI_LAUNCHER"])
    try:
        return compile_launcher(tmp_path_factory.mktemp("launcher"))
    except subprocess.CalledProcessError as error:
        pytest.fail(f"the launcher needs a C compiler that makes static programs: {error.stderr}")


class Executables:
    """Executables and zygotes of all modes, each made once, when a test first needs it.

    A fixture with a parameter ends when a test has another value of it: then each change of the mode would
    start zygotes anew, and each takes 0.3 s of CPU.
    """

    def __init__(self, new_folder: Callable[[str], Path]) -> None:
        self._new_folder = new_folder
        self._bindirs: dict[str, Path] = {}
        self._zygote: Zygote | None = None
        self._stack = ExitStack()

    def bindir(self, mode: str, launcher: Callable[[], Path]) -> Path:
        """Return a folder with an executable for every plugin."""
        if mode not in self._bindirs:
            folder, table = self._new_folder(mode), packages(declared())
            if mode == COLD:
                self._bindirs[mode] = make_bindir(folder, table)
            else:
                self._bindirs[mode] = make_warm_bindir(folder, table, launcher())
                self._stack.enter_context(ServerZygote(self._bindirs[mode]))
        return self._bindirs[mode]

    def zygote(self, bindir: Path) -> Zygote:
        """Return the process that forks cold calls."""
        self._zygote = self._zygote or self._stack.enter_context(Zygote(bindir))
        return self._zygote

    def close(self) -> None:
        """End the zygotes."""
        self._stack.close()


@pytest.fixture(scope="session")
def executables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Executables]:
    """Yield the executables of all modes."""
    with closing(Executables(tmp_path_factory.mktemp)) as executables:
        yield executables


@pytest.fixture(scope="session")
def bindir(mode: str, executables: Executables, request: pytest.FixtureRequest) -> Path:
    """Return a folder with an executable for every plugin."""
    if "PYCNI_BINDIR" in os.environ:
        return Path(os.environ["PYCNI_BINDIR"])
    return executables.bindir(mode, lambda: request.getfixturevalue("launcher"))


@pytest.fixture(scope="session")
def bundle() -> Path:
    """Return the frozen suite, made of the current sources."""
    command = ["/usr/bin/env", "make", "--silent", "bundle"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(done.stdout + done.stderr)
    return ROOT / "dist/bundle"


@pytest.fixture(scope="session")
def zygote(bindir: Path, mode: str, executables: Executables) -> Zygote | None:
    """Return the process that forks cold calls; None in other modes."""
    return executables.zygote(bindir) if mode == COLD and "PYCNI_BINDIR" not in os.environ else None


@pytest.fixture
def host(bindir: Path, mode: str, request: pytest.FixtureRequest) -> Iterator[Host]:
    """Yield a host in private namespaces. Skip the test where namespaces cannot be created."""
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    is_started = request.node.get_closest_marker("started")
    with Host(bindir, None if is_started else request.getfixturevalue("zygote")) as host:
        _set_up(host, mode)
        yield host


@pytest.fixture(scope="session")
def still_host(bindir: Path, mode: str, zygote: Zygote | None) -> Iterator[Host]:
    """Yield a host for all tests whose calls look at nothing and change nothing. Cold calls are forked."""
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    with Host(bindir, zygote) as host:
        _set_up(host, mode)
        yield host


def _set_up(host: Host, mode: str) -> None:
    if mode in SETTINGS:
        warm.set_up(host.place, **SETTINGS[mode])
    elif "PYCNI_BINDIR" in os.environ:
        warm.switch_off(host.place)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the counts of tests that repeat something: cases of fuzzing, operations of churn."""
    sums: dict[str, Counter[str]] = {}
    for report in terminalreporter.getreports("passed"):
        for kind, area, figures in (value for name, value in report.user_properties if name == "figures"):
            sums.setdefault(f"{kind}, {area}", Counter()).update(figures)
    for what, figures in sorted(sums.items()):
        told = ", ".join(f"{number:g} {name}" for name, number in figures.items())
        terminalreporter.write_line(f"{what}: {told}")
