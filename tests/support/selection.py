"""A pytest plugin that selects tests (--quick, --brief, --plugin NAME) and orders them for several workers.

No test is selected by a list of names:

- `--quick` keeps tests of tests/unit, tests/property and the plugins' folders that need no namespace, no
  bundle and no compiler, and those with the mark `quick`. Arguments restrict the mark to certain parameters:
  `quick(mode="cold", version="1.1.0")`. The mark `long` excludes a test, and starts it early in a full run,
  so that no core waits for it at the end.
- `--brief` leaves out tests with the mark `full`, which can be restricted to certain parameters, too. The
  modes of the plugins' tests and the points of faults are fewer: conftest.py, tests/netns/fault_world.py.
- `--plugin NAME` keeps the tests in the plugin's folder, and of each test that runs once for each plugin the
  part for this one.
"""

from __future__ import annotations

import os
from collections import defaultdict
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Any
from zlib import crc32

import pytest

from plugin_table import ROOT, declared

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from plugin_table import Declared

# Fixtures that start namespaces or compilers: a test that uses one is not quick unless it has the mark.
_SLOW_FIXTURES = {"mode", "launcher", "bundle"}
_QUICK_FOLDERS = [ROOT / name for name in ("tests/unit", "tests/property", "plugins")]
# Tests wait for the kernel and for timers during half of their time. Three workers on each core take 9 % more
# CPU for the same tests.
_WORKERS_PER_CORE = 2.5
# The order of a run. Tests of the first two kinds are spread: one of them before each so many others.
_LONG, _TOGETHER, _OTHERS, _SHORT = range(4)
_BETWEEN_LONG = 50


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("pycni")
    group.addoption("--quick", action="store_true", help="run a choice of tests that takes two minutes")
    text = "leave out variants: modes of the plugins, points of the faults, tests with the mark full"
    group.addoption("--brief", action="store_true", help=text)
    group.addoption("--plugin", metavar="NAME", help="run the tests of one plugin, by its name or its folder")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a plugin that does not exist, before any test is collected."""
    name = config.getoption("plugin")
    if name and not _find(name):
        names = sorted({each for plugin in declared() for each in (plugin.folder.name, *plugin.names)})
        raise pytest.UsageError(f"there is no plugin {name!r}; the plugins are {', '.join(names)}")


def _find(name: str) -> Declared | None:
    return next((each for each in declared() if name in (each.folder.name, *each.names)), None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return the number of workers for `-n auto`."""
    cores = len(os.sched_getaffinity(0))
    # Each worker collects all tests, which takes longer than the tests of most plugins.
    return cores if config.getoption("plugin") else int(_WORKERS_PER_CORE * cores)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None, None, None]:
    """Select and order the tests."""
    yield
    kept = list(items)
    if config.getoption("quick"):
        kept = [item for item in kept if is_quick(item)]
    if config.getoption("brief"):
        kept = [item for item in kept if not any(_fits(item, mark) for mark in item.iter_markers("full"))]
    if name := config.getoption("plugin"):
        plugin = _find(name)
        assert plugin
        kept = _list_of_plugin(plugin, kept)
    chosen = set(kept)
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    if "PYTEST_XDIST_WORKER" in os.environ:
        items[:] = _spread(sorted(kept, key=_rank))
    else:
        items[:] = sorted(kept, key=_rank_of_kind)


def _spread(items: list[pytest.Item]) -> list[pytest.Item]:
    """Return the tests with a long test, or a module that stays together, before each 50 others.

    Most of these wait, so cores would be idle if all of them ran at the same time.
    """
    units = [list(unit) for _, unit in groupby(items, key=_unit)]
    long = [unit for unit in units if _rank_of_kind(unit[0]) in {_LONG, _TOGETHER}]
    others = items[sum(map(len, long)) :]
    spread: list[pytest.Item] = []
    for number, unit in enumerate(long):
        spread += [*unit, *others[number * _BETWEEN_LONG : (number + 1) * _BETWEEN_LONG]]
    return spread + others[len(long) * _BETWEEN_LONG :]


def _unit(item: pytest.Item) -> str | Path:
    """Return what the scheduler gives to a worker as one: a test, or a module that stays together."""
    return item.path if _stays_together(item.path) else item.nodeid


def _rank(item: pytest.Item) -> tuple[int, str, int]:
    """Return the position in a run of several workers.

    Tests of one file often wait for the same. Those of other files come between them, so that cores are busy
    meanwhile. Those of a mode stay together, because a worker sets up one mode at a time. Tests that end soon
    are last: no core waits for the others then.
    """
    kind = _rank_of_kind(item)
    if kind == _TOGETHER:
        return kind, "", 0
    return kind, str(_params(item).get("mode", "")), crc32(item.nodeid.encode())


def _rank_of_kind(item: pytest.Item) -> int:
    if item.get_closest_marker("long"):
        return _LONG
    if _stays_together(item.path):
        return _TOGETHER
    return _SHORT if _is_pure(item) else _OTHERS


@cache
def _stays_together(module: Path) -> bool:
    """Return whether one worker runs all tests of a module.

    They may share a fixture, which each worker would create once more, or have the mark `one_worker`, because
    they use something of which the machine has only one.
    """
    text = module.read_text()
    return 'scope="module"' in text or "mark.one_worker" in text


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Return a scheduler that gives the next test to the next free worker, and some modules as a whole."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            module = nodeid.partition("::")[0]
            return module if _stays_together(config.rootpath / module) else nodeid

        def mark_test_complete(self, node: Any, item_index: int, duration: float = 0) -> None:
            """Forget what is done: for each test xdist counts all units of the node that it remembers."""
            scope = self._split_scope(self.registered_collections[node][item_index])
            super().mark_test_complete(node, item_index, duration)
            unit = self.assigned_work.get(node, {})
            if scope in unit and all(unit[scope].values()):
                del unit[scope]

    # The order is that of `_rank`. By default xdist begins with the modules that have most tests.
    config.option.loadscopereorder = False
    return Scheduling(config, log)


def _params(item: pytest.Item) -> dict[str, Any]:
    return dict(item.callspec.params) if hasattr(item, "callspec") else {}


def is_quick(item: pytest.Item) -> bool:
    if item.get_closest_marker("long"):
        return False
    mark = item.get_closest_marker("quick")
    return _fits(item, mark) if mark else _is_pure(item)


def _fits(item: pytest.Item, mark: pytest.Mark) -> bool:
    """Return whether a test has the parameters that its mark names."""
    params = _params(item)
    return all(params.get(name) == value for name, value in mark.kwargs.items())


def _is_pure(item: pytest.Item) -> bool:
    """Return whether a test starts no namespace and no compiler."""
    is_slow = _SLOW_FIXTURES & set(getattr(item, "fixturenames", ()))
    return not is_slow and any(folder in item.path.parents for folder in _QUICK_FOLDERS)


def _list_of_plugin(plugin: Declared, items: Sequence[pytest.Item]) -> list[pytest.Item]:
    # Some tests leave out plugins whose ADD needs what the host or its kernel does not have.
    everyone = {each.names[0] for each in declared() if not (each.needs_kernel or each.needs_server)}
    values: dict[tuple[object, str], set[object]] = defaultdict(set)
    for item in items:
        for name, value in _params(item).items():
            if isinstance(value, str):
                values[_function(item), name].add(value)

    def is_part_for_plugin(item: pytest.Item) -> bool:
        return any(
            value in plugin.names and everyone <= values[_function(item), name]
            for name, value in _params(item).items()
            if isinstance(value, str)
        )

    return [item for item in items if plugin.folder in item.path.parents or is_part_for_plugin(item)]


def _function(item: pytest.Item) -> tuple[Path, str]:
    return item.path, getattr(item, "originalname", item.name)
