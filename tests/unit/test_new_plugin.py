"""`pycni new-plugin` writes a plugin that passes all checks before it is edited."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

import layout
from cni.cli import new_plugin
from cni.cli.main import run
from cni.errors import CniError, Code
from cni.testing import why_no_namespaces
from plugin_table import ROOT
from tests.support import scene

if TYPE_CHECKING:
    from pathlib import Path

NAME = "try-it-out"
PARTS = ["build", "cni", "plugins", "tests", "conftest.py", "pyproject.toml"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the source tree with a new plugin."""
    root = tmp_path_factory.mktemp("tree")
    # The copies have the times of the originals, so that what Python has compiled of these is valid. Other
    # workers may be writing more of it.
    unfinished = shutil.ignore_patterns("*.pyc.*")
    for name in PARTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=unfinished, symlinks=True)
        else:
            shutil.copy2(source, root / name)
    assert run(["new-plugin", NAME, str(root / "plugins")]) == 0
    return root


def check(tree: Path, *arguments: str, **variables: str) -> str:
    """Run a Python module in the tree as the Makefile does, and return its output."""
    plugins = [str(path) for path in sorted((tree / "plugins").iterdir())]
    env = os.environ | {"PYTHONPATH": ":".join([str(tree), str(tree / "build"), *plugins])}
    env |= {"MYPYPATH": ":".join(["build", *(os.path.relpath(path, tree) for path in plugins)])}
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(
        command, cwd=tree, env=env | variables, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_has_every_file_of_the_template_under_its_own_name(tree: Path) -> None:
    made, template = tree / "plugins" / NAME, tree / "plugins" / new_plugin.TEMPLATE
    files = {str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()}
    originals = [path for path in template.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert len(files) == len(originals)
    assert {"plugin.toml", "README.md", "tests/data/example.json", "tests/test_try_it_out_verbs.py"} <= files
    assert {"cni_try_it_out/__init__.py", "cni_try_it_out/gc.py", "cni_try_it_out/properties.py"} <= files
    texts = [path.read_text() for path in made.rglob("*") if path.is_file()]
    name = new_plugin.TEMPLATE
    words = (f"cni_{name}", f'"{name}"', f"{name.title()}Conf")
    assert not any(word in text for word in words for text in texts)


def test_ruff_is_content(tree: Path) -> None:
    check(tree, "ruff", "check", f"plugins/{NAME}")
    check(tree, "ruff", "format", "--check", f"plugins/{NAME}")


def test_mypy_is_content(tree: Path) -> None:
    cache = tree / "cache"
    # `make lint` has checked the library. It may be writing to its cache.
    for path in (ROOT / ".mypy_cache").rglob("*.db"):
        copy = cache / path.relative_to(ROOT / ".mypy_cache")
        copy.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
    check(tree, "mypy", "--cache-dir", str(cache), f"plugins/{NAME}")


def test_the_layout_is_that_of_a_plugin(tree: Path) -> None:
    made = tree / "plugins" / NAME
    assert list(layout.check_plugin_folder(made)) == []
    paths = [str(path.relative_to(tree)) for path in made.rglob("*.py")]
    sources = [layout.parse(path, (tree / path).read_text()) for path in paths]
    assert [found for rule in layout.SOURCE_RULES for source in sources for found in rule(source)] == []


def test_its_own_tests_pass_and_those_of_every_plugin(tree: Path, launcher: Path) -> None:
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    every, chosen = "tests/netns/test_every_plugin.py", f"{NAME.replace('-', '_')} or (never_was and {NAME})"
    arguments = ["-q", "-p", "no:cacheprovider", f"plugins/{NAME}", every, "-k", chosen]
    output = check(tree, "pytest", *arguments, PYCNI_LAUNCHER=str(launcher))
    assert " passed" in output
    assert "skipped" not in output


@pytest.mark.parametrize(
    "name", ["", "Big", "under_score", "-x", "x-", "a--b", "../x", "1x", "x\n", "pycni", "tests", "x" * 201]
)
def test_other_names_are_refused(tree: Path, name: str) -> None:
    with pytest.raises(CniError) as caught:
        new_plugin.run(name, tree / "plugins")
    assert caught.value.code == Code.INVALID_CONFIG


@pytest.mark.parametrize("name", [NAME, scene.INTERFACE, scene.IPAM])
def test_a_plugin_is_not_overwritten(tree: Path, name: str) -> None:
    with pytest.raises(CniError) as caught:
        new_plugin.run(name, tree / "plugins")
    assert caught.value.code == Code.ALREADY_EXISTS


def test_a_folder_without_a_template_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["new-plugin", "x", str(tmp_path)]) == 1
    assert list(tmp_path.iterdir()) == []
    assert "there is no template of a plugin" in capsys.readouterr().err
