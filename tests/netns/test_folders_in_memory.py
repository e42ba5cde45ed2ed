"""A run with several workers keeps the folders of tests in memory, unless the user has chosen a place."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cni.testing import why_no_namespaces
from plugin_table import ROOT
from tests.support import memory

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    bool(why_no_namespaces()) or os.geteuid() != 0 or memory.available() < memory.NEEDED,
    reason="folders are in memory for root only, and where there is enough memory",
)
TEST = """
import os, subprocess
def test_of_another_run(tmp_path):
    kind = subprocess.run(["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True).stdout
    with open(os.environ["SEEN"], "w") as file:
        file.write(f"{kind.strip()} {tmp_path}")
"""


def run(folder: Path, *options: str, **env: str) -> tuple[str, str]:
    """Run a test in another pytest. Return the kind of the file system of its folder, and the folder."""
    (folder / "test_it.py").write_text(TEST)
    seen = folder / "seen"
    chosen = {name: value for name, value in os.environ.items() if name != memory.VARIABLE}
    command = [sys.executable, "-m", "pytest", "-q", "-p", memory.__name__, "--noconftest", *options]
    subprocess.run(
        [*command, "-p", "no:cacheprovider", str(folder / "test_it.py")],
        cwd=ROOT,
        env=chosen | {"SEEN": str(seen)} | env,
        check=True,
        capture_output=True,
    )
    kind, _, path = seen.read_text().partition(" ")
    return kind, path


def test_workers_have_folders_in_memory_that_vanish_with_the_run(tmp_path: Path) -> None:
    kind, path = run(tmp_path, "-n", "1", TMPDIR=str(tmp_path))
    assert (kind, path.startswith(f"{tmp_path}/pycni-tests-")) == ("tmpfs", True)
    assert not list(tmp_path.glob("pycni-tests-*"))


def test_one_process_has_folders_that_stay(tmp_path: Path) -> None:
    _, path = run(tmp_path, TMPDIR=str(tmp_path))
    assert path.startswith(f"{tmp_path}/pytest-of-")


def test_a_chosen_place_is_kept(tmp_path: Path) -> None:
    _, path = run(tmp_path, "-n", "1", **{memory.VARIABLE: str(tmp_path)})
    assert path.startswith(f"{tmp_path}/pytest-of-")
