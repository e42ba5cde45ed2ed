"""The launcher that tests use is that of the current sources: compiled, or what `make bundle` has built."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from cni.warm import connection
from plugin_table import ROOT
from tests.support import launcher

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a tree with the sources, and files in dist/ that are newer."""
    for name in ("launcher", "connection"):
        shutil.copytree(ROOT / "build" / name, tmp_path / "build" / name)
    (tmp_path / "dist").mkdir()
    newest = max(path.stat().st_mtime_ns for path in (tmp_path / "build").rglob("*"))
    for name in ("launcher", connection.FILE):
        (tmp_path / "dist" / name).write_text("built")
        os.utime(tmp_path / "dist" / name, ns=(newest + 1, newest + 1))
    (tmp_path / "compiled").mkdir()
    monkeypatch.setattr(launcher, "ROOT", tmp_path)
    return tmp_path


def test_what_is_newer_than_all_sources_is_taken(tree: Path) -> None:
    assert launcher.compile_launcher(tree / "compiled") == tree / "dist/launcher"
    assert list((tree / "compiled").iterdir()) == []


@pytest.mark.parametrize("source", ["launcher/launcher.c", "launcher/protocol.h", "connection/compile.sh"])
def test_a_source_that_is_newer_is_compiled(tree: Path, source: str) -> None:
    for name in ("launcher", "connection"):
        (tree / "build" / name / "compile.sh").write_text('#!/bin/sh\necho compiled >"$1"\n')
    built = (tree / "dist/launcher").stat().st_mtime_ns
    os.utime(tree / "build" / source, ns=(built, built))
    program = launcher.compile_launcher(tree / "compiled")
    assert program == tree / "compiled/launcher"
    assert program.read_text() == program.with_name(connection.FILE).read_text() == "compiled\n"


def test_without_the_library_both_are_compiled(tree: Path) -> None:
    (tree / "dist" / connection.FILE).unlink()
    program = launcher.compile_launcher(tree / "compiled")
    assert program == tree / "compiled/launcher"
    assert program.read_bytes()[:4] == program.with_name(connection.FILE).read_bytes()[:4] == b"\x7fELF"
