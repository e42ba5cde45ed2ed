"""`make demo` tells its story to the end."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cni.testing import why_no_namespaces
from plugin_table import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.skipif(bool(why_no_namespaces()), reason=why_no_namespaces() or "they can be made")
def test_the_demonstration_holds(bundle: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "build/demo.py"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert "checks hold" in done.stdout
    assert done.stderr == ""


def test_a_failure_is_one_line_and_an_exit_status() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "build/demo.py"],
        capture_output=True,
        text=True,
        env={"PATH": ""},
        check=False,
    )
    assert done.returncode == 1
    assert "failed: namespaces need unshare" in done.stdout
    assert done.stderr == ""
