"""The order of a run with several workers: files mixed, modes apart, tests that end soon last."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import groupby

from plugin_table import ROOT
from tests.support import scene

# It has tests of two modes, and tests that need no namespace.
FOLDER = ROOT / "plugins" / scene.INTERFACE


def test_files_are_mixed_and_modes_are_not() -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    env = os.environ | {"PYTEST_XDIST_WORKER": "gw0"}
    done = subprocess.run(
        [*command, "-m", "not long", str(FOLDER)],
        env=env,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    tests = [line for line in done.stdout.splitlines() if "::" in line]
    files = [file for file, _ in groupby(each.split("::")[0] for each in tests)]
    assert len(files) > len(tests) / 2
    modes = [mode for mode, _ in groupby(each.partition("[")[2][:4] for each in tests)]
    assert modes[:2] == ["cold", "warm"]
    assert not {"cold", "warm"} & set(modes[2:])
    assert modes[2:]
