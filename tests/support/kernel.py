"""A pytest plugin for tests that need a feature of the kernel.

- `needs_kernel("vlan")` skips a test where the kernel lacks a feature. `make test` then runs the skipped
  tests on a second kernel, which has all features.
- `kernel_without("vlan_filtering")` skips a test where the kernel has a feature: the test is about an error.
- `needs_kernel = ["vlan"]` in a plugin.toml marks the tests that run once for each plugin, where that plugin
  is their parameter. Tests in its own folder have the mark if they need it.

tests/kernel/features.toml has the features with a probe for each.
"""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni.testing.place import BARE_ENV, CommandError, why_no_namespaces
from plugin_table import ROOT, declared
from tests.support.selection import is_quick

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FEATURES: dict[str, str] = tomllib.loads((ROOT / "tests/kernel/features.toml").read_text())
# The property of a skipped test in its report, and the begin of the reason.
LACKS = "the kernel lacks"
_PURE = [ROOT / "tests/unit", ROOT / "tests/property"]
_PAIR = "ip link add v0 type veth peer name v1; ip link set v0 up; ip link set v1 up"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of a run on the second kernel."""
    group = parser.getgroup("pycni")
    text = "fail a test whose needs_kernel this kernel lacks, instead of skipping it"
    thorough = "keep all tests of plugins that this kernel lacks a feature for"
    group.addoption("--thorough", action="store_true", help=thorough)
    group.addoption("--no-kernel-skips", action="store_true", help=text)
    text = "write a line of JSON for each test that ends or, with --collect-only, that would run"
    group.addoption("--kernel-report", metavar="FILE", help=text)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks."""
    config.addinivalue_line("markers", "needs_kernel(*features): runs where the kernel has all features")
    config.addinivalue_line("markers", "kernel_without(*features): runs where the kernel has none of them")
    # The workers of xdist pass their reports to the process that writes.
    if (path := config.getoption("kernel_report")) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Report(Path(path)))


class _Report:
    """The lines of --kernel-report; `lacks` is true if the reason of a skip is what the kernel lacks.

    `outcome` is "passed", "failed", "skipped" or, with --collect-only, "collected".
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def _write(self, test: str, outcome: str, reason: str = "", *, lacks: bool = False) -> None:
        with self._path.open("a") as file:
            line = {"test": test, "outcome": outcome, "reason": reason, "lacks": lacks}
            file.write(json.dumps(line) + "\n")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write the outcome of a test. One that fails in its teardown has two."""
        if report.skipped and not hasattr(report, "wasxfail") and isinstance(report.longrepr, tuple):
            reason = report.longrepr[2].removeprefix("Skipped: ")
            self._write(report.nodeid, "skipped", reason, lacks=LACKS in dict(report.user_properties))
        elif report.failed or report.when == "call":
            self._write(report.nodeid, "failed" if report.failed else "passed")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Write the tests that are only collected."""
        for item in session.items if session.config.option.collectonly else []:
            self._write(item.nodeid, "collected", lacks=not has_all(_features(item, "needs_kernel")))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests that run with a plugin that needs features; refuse features without a probe.

    Of the tests that run with every plugin, those that this kernel lacks features for are left out, but for
    the quick ones: the second kernel is slow. `--thorough` keeps them.
    """
    needs = {name: plugin.needs_kernel for plugin in declared() for name in plugin.names}
    left_out: set[pytest.Item] = set()
    for item in items:
        for name in _plugins(item):
            if needs.get(name):
                item.add_marker(pytest.mark.needs_kernel(*needs[name]))
                is_kept = config.getoption("thorough") or has_all(needs[name]) or is_quick(item)
                if not is_kept:
                    left_out.add(item)
        if unknown := set(_features(item, "needs_kernel", "kernel_without")) - FEATURES.keys():
            names = ", ".join(sorted(unknown))
            raise pytest.UsageError(f"{item.nodeid} needs {names}; the features are {', '.join(FEATURES)}")
    if left_out:
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = [item for item in items if item not in left_out]


def _plugins(item: pytest.Item) -> Iterator[str]:
    if hasattr(item, "callspec") and not _is_pure(item.path):
        for value in item.callspec.params.values():
            yield from (
                each for each in (value if isinstance(value, tuple) else [value]) if isinstance(each, str)
            )


@cache
def _is_pure(module: Path) -> bool:
    return any(folder in module.parents for folder in _PURE)


def _features(item: pytest.Item, *marks: str) -> list[str]:
    return [str(feature) for each in item.iter_markers() if each.name in marks for feature in each.args]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that this kernel cannot run."""
    if lacking := [feature for feature in _features(item, "needs_kernel") if not has(feature)]:
        reason = f"{LACKS} {', '.join(lacking)}"
        if item.config.getoption("no_kernel_skips"):
            pytest.fail(reason, pytrace=False)
        item.user_properties.append((LACKS, lacking))
        pytest.skip(reason)
    if present := [feature for feature in _features(item, "kernel_without") if has(feature)]:
        pytest.skip(f"the kernel has {', '.join(present)}")


def has_all(features: Iterable[str]) -> bool:
    """Return whether the running kernel has all these features."""
    return all(has(feature) for feature in features)


@cache
def has(feature: str) -> bool:
    """Return whether the running kernel has a feature: try it in a private namespace.

    True where this user cannot create namespaces. Such a test has another reason to be skipped or to fail.
    """
    return bool(why_no_namespaces()) or not _fails(_PAIR, FEATURES[feature])


def _fails(preparation: str, probe: str) -> bool:
    """Return whether a probe fails. Raise CommandError if its preparation does."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    script = f"set -e; {preparation}; echo ready; {probe}"
    command = ["unshare", *user, "--net", "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, env=BARE_ENV, check=False)
    if done.stdout.partition("\n")[0] != "ready":
        raise CommandError(f"no namespace to try the kernel in: {done.stderr}")
    return done.returncode != 0
