"""A pytest plugin that fails a run whose tests leave something on the machine, outside their namespaces.

It compares names in the folders where plugins, runtimes and tests would leave files, and the names of links.
"""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

# Of the root directory.
PATTERNS = (
    *(
        "*",
        "etc/*",
        "etc/cni/*",
        "etc/cni/net.d/*",
        "opt/*",
        "opt/cni/*",
        "opt/cni/bin/*",
        "run/*",
        "run/netns/*",
    ),
    *("usr/lib/cni/*", "usr/local/*", "usr/local/*/*", "var/*", "var/lib/*", "var/lib/cni/*", "var/log/*"),
    *("sys/fs/cgroup/*", "sys/fs/cgroup/*/*"),
)
# What programs of the machine make by themselves.
_USUAL = {"/run/mount"}


def names() -> set[str]:
    """Return the paths that match a pattern, and the links of this namespace."""
    paths = {str(path) for pattern in PATTERNS for path in Path("/").glob(pattern)}
    return paths - _USUAL | {f"link {name}" for _, name in socket.if_nameindex()}


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
        self._new = sorted(names() - self._before)
        if self._new and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name what is new."""
        if self._new:
            terminalreporter.section("left on the machine", red=True)
            for name in self._new:
                terminalreporter.write_line(name)
