"""A pytest plugin that fails a run whose tests leave something on the machine, outside their namespaces.

It compares names in the folders where plugins, runtimes and tests would leave files, and the names of links.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

FOLDERS = (
    *("etc", "etc/cni", "etc/cni/net.d", "opt", "opt/cni", "opt/cni/bin", "run", "run/netns", "usr/lib/cni"),
    *("usr/local", "usr/local/*", "var", "var/lib", "var/lib/cni"),
)
_GROUPS = Path("/sys/fs/cgroup")
# What programs of the machine make by themselves.
_USUAL = {"/run/mount"}
# The kernel removes links and control groups some time after their last process.
_SETTLED_S = 5


def names() -> set[str]:
    """Return the paths of all that is in the folders, of control groups, and the links of this namespace."""
    paths = {str(path) for folder in FOLDERS for path in Path("/").glob(f"{folder}/*")}
    # In version 1 each controller has a tree of its own. Deeper groups are those of the machine's services.
    is_unified = (_GROUPS / "cgroup.controllers").exists()
    groups = {str(path) for path in _GROUPS.glob("*/" if is_unified else "*/*/")}
    return paths - _USUAL | groups | {f"link {name}" for _, name in socket.if_nameindex()}


def pytest_configure(config: pytest.Config) -> None:
    """Remember what is there; the workers of xdist are part of the run."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Watch())


class Watch:
    """A comparison of the machine before and after the tests."""

    def __init__(self) -> None:
        self._before = names()
        self._new: list[str] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Let the run fail if there is anything new."""
        deadline = time.monotonic() + _SETTLED_S
        while (new := names() - self._before) and time.monotonic() < deadline:
            time.sleep(0.1)
        self._new = sorted(new)
        if self._new and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name what is new."""
        if self._new:
            terminalreporter.section("left on the machine", red=True)
            for name in self._new:
                terminalreporter.write_line(name)
