"""No file outside a plugin's folder depends on which plugins there are.

A new plugin's name stands in its own folder only. Names are string literals and imported modules. Comments
and docstrings may name plugins.

Tests that are about something else (the installer, the warm server, the command) need some network, and use
the plugins of `tests/support/scene.py`. They may name these, but must not list them. Tests of what holds for
all plugins use `tests/support/subjects.py`, and name none.
"""

from __future__ import annotations

import ast
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pytest

import layout
from plugin_table import ROOT, declared
from tests.support import scene

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from layout import Source

NAMES = {name for plugin in declared() for name in plugin.names}
PACKAGES = {plugin.package for plugin in declared()}
SCENE = {*scene.CHAIN, scene.IPAM}
FOR_ALL = "tests.support.subjects"
# So many names in one literal are a list of the plugins.
A_LIST = 3

# File or folder: the names it may have, and why.
ABOUT: dict[str, tuple[set[str], str]] = {
    "cni/kernel": ({"bridge"}, "the kernel's kind of link"),
    "cni/kernel/tap.py": ({"tap"}, "the kernel's word for the device"),
    "cni/firewall": ({"bridge"}, "nftables' family"),
    "cni/cli/show.py": ({"bridge"}, "a word that it prints"),
    "cni/cli/new_plugin.py": ({"loopback"}, "the template of new plugins"),
    "cni/runtime/network.py": ({"bridge"}, "the kernel's kind of link, a key of configurations"),
    "cni/testing": ({"bridge", "host-local"}, "the network of a plugin author's first test"),
    "build/bench": (SCENE, "compares these with Debian's Go plugins"),
    "build/demo.py": ({"bridge", "loopback"}, "shows one network"),
    "build/install_selftest.py": (
        {"bridge", "host-local", "loopback"},
        "tries one network",
    ),
    "tests/support/scene.py": (SCENE, "the usual network"),
    "tests/interop": (SCENE, "compares these with Debian's Go plugins"),
    "tests/netns/test_pycni_old_lists.py": ({*SCENE, "static"}, "files that other tools have written"),
    "tests/unit/test_plugin_names.py": (NAMES, "this list"),
}


@pytest.fixture(scope="module")
def sources() -> list[Source]:
    """Return all files outside the plugins' folders."""
    return [each for each in layout.read_tree(ROOT) if each.path.parts[0] != "plugins"]


def find_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield each plugin that code names, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            value = node.value.decode(errors="replace") if isinstance(node.value, bytes) else node.value
            if isinstance(value, str) and value in NAMES:
                yield value, node.lineno
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for each in layout.list_imports(layout.Source(PurePosixPath(), "", ast.Module([node], []))):
                if each.module.split(".")[0] in PACKAGES:
                    yield each.module.split(".")[0], node.lineno


def find_lists(tree: ast.AST) -> Iterator[int]:
    """Yield the lines of literals that list plugins."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            parts: Sequence[ast.expr | None] = node.keys
        elif isinstance(node, ast.List | ast.Tuple | ast.Set):
            parts = node.elts
        else:
            continue
        if len({each.value for each in parts if isinstance(each, ast.Constant)} & NAMES) >= A_LIST:
            yield node.lineno


def allowed(source: Source) -> set[str]:
    """Return the names that a file may have."""
    places = {str(source.path), *map(str, source.path.parents)}
    about = {name for place, (names, _) in ABOUT.items() if place in places for name in names}
    is_for_all = any(each.module == FOR_ALL for each in layout.list_imports(source))
    return about | (SCENE if source.is_test and not is_for_all else set())


def find_wrong(source: Source) -> list[str]:
    """List what a file must not have."""
    may = allowed(source)
    wrong = [
        f"{source.path}:{line} names {name}" for name, line in find_names(source.tree) if name not in may
    ]
    if str(source.path) in ABOUT:
        return wrong
    return wrong + [f"{source.path}:{line} lists plugins" for line in find_lists(source.tree)]


def test_no_file_depends_on_which_plugins_there_are(sources: list[Source]) -> None:
    assert [wrong for source in sources for wrong in find_wrong(source)] == []


def test_each_exception_is_needed(sources: list[Source]) -> None:
    for place, (names, _) in ABOUT.items():
        within = [each for each in sources if place in {str(each.path), *map(str, each.path.parents)}]
        assert not within or names & {name for each in within for name, _ in find_names(each.tree)}, place


@pytest.mark.parametrize(
    ("path", "text", "count"),
    [
        ("cni/x.py", 'if name == "portmap": pass', 1),
        ("cni/x.py", "import cni_bridge.plan", 1),
        ("cni/x.py", "# like bridge\n'''As \"bridge\" does.'''", 0),
        ("cni/kernel/x.py", 'kind = "bridge"', 0),
        ("build/x.py", 'b"loopback"', 1),
        ("tests/x.py", 'call("bridge")', 0),
        ("tests/x.py", 'call("static")', 1),
        ("tests/x.py", 'PLUGINS = ("bridge", "portmap", "loopback")', 1),
        ("tests/x.py", 'MOST = {"bridge": 1, "portmap": 2, "loopback": 3}', 1),
        ("tests/x.py", 'from tests.support.subjects import PLUGINS\ncall("bridge")', 1),
    ],
)
def test_samples(path: str, text: str, count: int) -> None:
    assert len(find_wrong(layout.parse(path, text))) == count
