"""The tree obeys the rules of build/layout.py, and each rule finds its violations."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

import pytest

import layout
from plugin_table import ROOT, Declared, declared

if TYPE_CHECKING:
    from types import FunctionType

FOLDERS = [ROOT / name for name in ("cni", "plugins", "conf", "build", "docs", "tests")]
KINDS = {".md", ".toml", ".conflist", ".sh", ".json"}


class Read(NamedTuple):
    """All that tests of the tree need: paths, and objections of each rule and about texts."""

    paths: list[PurePosixPath]
    objections: dict[str, list[str]]
    texts: list[str]


@pytest.fixture(scope="module")
def read() -> Read:
    """Return what one passage over all files finds: to parse them takes longer than the rules."""
    read = Read([], defaultdict(list), [])
    for source in layout.read_tree(ROOT):
        read.paths.append(source.path)
        for rule in layout.SOURCE_RULES:
            read.objections[rule.__name__] += rule(source)
        if source.path.name != "test_layout.py":
            read.texts.extend(layout.check_text(source.path, source.text))
    return read


@pytest.mark.parametrize("rule", layout.SOURCE_RULES, ids=lambda rule: rule.__name__)
def test_the_tree_obeys(read: Read, rule: FunctionType) -> None:
    assert read.objections[rule.__name__] == []


def test_test_files_have_names_of_their_own(read: Read) -> None:
    assert list(layout.check_test_names(read.paths)) == []


@pytest.mark.parametrize("plugin", declared(), ids=lambda plugin: plugin.folder.name)
def test_a_plugin_folder_is_complete(plugin: Declared) -> None:
    assert list(layout.check_plugin_folder(plugin.folder)) == []


def test_every_folder_of_plugins_is_declared() -> None:
    folders = {path.name for path in (ROOT / "plugins").iterdir() if any(path.rglob("*.py"))}
    assert folders == {plugin.folder.name for plugin in declared()}


def test_nothing_names_a_folder_of_one_machine(read: Read) -> None:
    paths = [path for folder in FOLDERS for path in sorted(folder.rglob("*")) if path.suffix in KINDS]
    paths += [*ROOT.glob("*.md"), ROOT / "Makefile", ROOT / "pyproject.toml"]
    texts = [(PurePosixPath(path.relative_to(ROOT)), path.read_text(errors="replace")) for path in paths]
    assert read.texts == []
    assert [found for path, text in texts for found in layout.check_text(path, text)] == []


LONG = "def f() -> None:\n" + "    pass\n" * 60
BAD = [
    ("check_plugins_apart", "cni/skel.py", "import cni_first"),
    ("check_plugins_apart", "plugins/first/cni_first/plugin.py", "from cni_second.plan import x"),
    ("check_plugins_apart", "plugins/first/cni_first/plugin.py", "def f():\n    import cni_second"),
    ("check_layers", "cni/conf.py", "from cni.kernel.rtnetlink import Netlink"),
    ("check_layers", "cni/conf.py", "from cni.kernel import rtnetlink"),
    ("check_layers", "cni/kernel/link.py", "from cni.skel import run"),
    ("check_layers", "cni/skel.py", "from cni.multicall import main"),
    ("check_layers", "cni/kernel/link.py", "from cni.operations.garbage import Stale"),
    ("check_layers", "cni/state/lock.py", "def f():\n    from cni.kernel import netns"),
    ("check_layers", "cni/nowhere.py", "import os"),
    ("check_layers", "cni/firewall/select.py", "from cni.runtime import chain"),
    ("check_layers", "plugins/first/cni_first/plugin.py", "from cni.skel import main"),
    ("check_layers", "plugins/first/cni_first/__main__.py", "from cni.cli.main import main"),
    ("check_pure", "plugins/first/cni_first/conf.py", "import os"),
    ("check_pure", "plugins/first/cni_first/plan.py", "from cni.kernel.rtnetlink import Netlink"),
    ("check_pure", "plugins/first/cni_first/plan.py", "from cni.kernel import link"),
    ("check_pure", "plugins/first/cni_first/plan.py", "from cni.firewall import select"),
    ("check_pure", "cni/interface/plan.py", "from cni.kernel import link"),
    ("check_layers", "cni/interface/pair.py", "from cni.skel import main"),
    ("check_layers", "cni/kernel/link.py", "from cni.interface.plan import PairPlan"),
    ("check_order", "plugins/first/cni_first/plan.py", "from cni_first.add import x"),
    ("check_order", "plugins/first/cni_first/plan.py", "from cni_first import PLUGIN"),
    ("check_order", "plugins/first/cni_first/conf.py", "def f():\n    from cni_first.plan import x"),
    ("check_order", "plugins/first/cni_first/__init__.py", "from cni_first.add import x"),
    ("check_owners", "cni/kernel/link.py", "from pyroute2.netlink import nlmsg"),
    ("check_owners", "cni/kernel/rtnetlink.py", "from pyroute2.netlink import nlmsg"),
    ("check_owners", "plugins/first/cni_first/apply.py", "import subprocess"),
    ("check_owners", "cni/runtime/chain.py", "import typer"),
    ("check_handles", "cni/kernel/link.py", "import os\nx = os.environ.get('PATH')"),
    ("check_handles", "plugins/first/cni_first/plugin.py", "import sys\nsys.exit(1)"),
    ("check_size", "cni/kernel/link.py", "x = 1\n" * 401),
    ("check_size", "tests/unit/test_x.py", LONG),
    ("check_names", "cni/kernel/link.py", "def f(found: str) -> None: ..."),
    ("check_names", "build/demo.py", "def f(*, told: str) -> None: ..."),
    ("check_names", "plugins/first/cni_first/plan.py", "class A:\n    what: str"),
    ("check_import_reasons", "cni/kernel/link.py", "def f():\n    import shutil"),
    (
        "check_import_reasons",
        "cni/kernel/link.py",
        '"""Links."""\ndef f():\n    # Slow.\n    x = 1\n    import shutil',
    ),
]
GOOD = [
    ("check_plugins_apart", "plugins/first/cni_first/plugin.py", "from cni_first.plan import x"),
    ("check_plugins_apart", "plugins/first/tests/test_first.py", "import cni_second"),
    ("check_layers", "cni/plugin.py", "if TYPE_CHECKING:\n    from cni.kernel.rtnetlink import Netlink"),
    ("check_layers", "cni/multicall.py", "from cni import skel"),
    ("check_layers", "cni/cli/main.py", "from cni.runtime.chain import x"),
    ("check_layers", "plugins/first/cni_first/__main__.py", "from cni.skel import main"),
    ("check_pure", "plugins/first/cni_first/plan.py", "from cni.firewall.intents import Masquerade"),
    ("check_pure", "plugins/first/cni_first/plan.py", "from cni.interface.plan import PairPlan"),
    ("check_layers", "plugins/first/cni_first/add.py", "from cni.interface import layer3"),
    ("check_pure", "plugins/first/cni_first/apply.py", "import os"),
    ("check_order", "plugins/first/cni_first/check.py", "from cni_first.properties import x"),
    ("check_order", "plugins/first/cni_first/conf.py", "from cni_first.ranges import x"),
    ("check_order", "plugins/first/cni_first/__init__.py", "from cni_first.conf import x"),
    ("check_order", "plugins/first/cni_first/__main__.py", "from cni_first import PLUGIN"),
    ("check_pure", "plugins/first/cni_first/conf.py", "from cni.ipam.rules import x"),
    ("check_owners", "cni/kernel/message_classes.py", "def f():\n    import pyroute2"),
    ("check_owners", "cni/testing/host.py", "import subprocess"),
    ("check_handles", "cni/skel.py", "import sys\nsys.exit(1)"),
    ("check_handles", "plugins/first/cni_first/__main__.py", "import sys\nsys.exit(1)"),
    ("check_size", "cni/kernel/link.py", "x = 1\n" * 400),
    ("check_names", "cni/kernel/link.py", "def f(link: str) -> None:\n    found = link"),
    ("check_names", "tests/unit/test_x.py", "def f(found: str) -> None: ..."),
    (
        "check_import_reasons",
        "cni/kernel/link.py",
        "def f():\n    # It takes 2 ms.\n    import shutil\n    import os",
    ),
    ("check_import_reasons", "cni/kernel/link.py", "def f():\n    import shutil  # It takes 2 ms."),
    (
        "check_import_reasons",
        "cni/cli/main.py",
        '"""Imports in functions: cold start."""\ndef f():\n    import os',
    ),
]


@pytest.mark.parametrize(("rule", "path", "text"), BAD)
def test_a_rule_finds(rule: str, path: str, text: str) -> None:
    assert list(getattr(layout, rule)(layout.parse(path, text)))


@pytest.mark.parametrize(("rule", "path", "text"), GOOD)
def test_a_rule_allows(rule: str, path: str, text: str) -> None:
    assert list(getattr(layout, rule)(layout.parse(path, text))) == []


def test_two_tests_of_one_name_are_found() -> None:
    paths = [PurePosixPath("tests/unit/test_a.py"), PurePosixPath("plugins/x/tests/test_a.py")]
    assert list(layout.check_test_names(paths))


def test_an_incomplete_plugin_folder_is_found(tmp_path: Path) -> None:
    found = list(layout.check_plugin_folder(tmp_path))
    assert len(found) == 7


@pytest.mark.parametrize("text", ["see /home/jo/notes", "cp x `/root/bin`", "in /srv/build"])
def test_a_path_of_one_machine_is_found(text: str) -> None:
    assert list(layout.check_text(PurePosixPath("README.md"), text))


@pytest.mark.parametrize("text", ["/proc/{pid}/root/run", "/proc/1/root/etc", "dist/work/x", "/opt/cni/bin"])
def test_a_path_that_is_everywhere_is_allowed(text: str) -> None:
    assert list(layout.check_text(PurePosixPath("README.md"), text)) == []
