"""Which tests go to the second kernel, how guests share them, and what is reported where there is none."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from plugin_table import ROOT
from tests.kernel.run import split

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# A feature that no kernel has and one that each kernel has, and a plugin that needs the former.
CONFTEST = """
from pathlib import Path
from plugin_table import Declared
from tests.support import kernel
kernel.FEATURES = {"nowhere": "false", "everywhere": "true"}
kernel.declared = lambda: [Declared(Path(), "cni_odd", ("odd",), "odd", needs_kernel=("nowhere",))]
pytest_plugins = ["tests.support.kernel"]
"""
TESTS = """
import pytest

@pytest.mark.needs_kernel("nowhere")
def test_lacking(): pass

@pytest.mark.needs_kernel("everywhere")
def test_here(): pass

@pytest.mark.kernel_without("everywhere")
def test_without(): pass

@pytest.mark.skip(reason="another reason")
def test_skipped(): pass

@pytest.mark.parametrize("plugin", ["odd", "even", ("even", "odd")], ids=["odd", "even", "both"])
def test_plugin(plugin): pass
"""


def run(folder: Path, *arguments: str, tests: str = TESTS, options: Sequence[str] = ()) -> tuple[int, str]:
    """Run `both` without a second kernel, with a few tests in a tree of their own."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_x.py").write_text(tests)
    command = [sys.executable, "-m", "tests.kernel.run", *arguments, "both", "--"]
    pytest = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--thorough",
        "--rootdir",
        str(folder),
        *options,
    ]
    done = subprocess.run(
        [*command, *pytest, str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_what_ran_on_no_kernel_is_listed_by_reason(tmp_path: Path) -> None:
    status, output = run(tmp_path, "--second", "no")
    assert status == 0, output
    assert "THERE IS NO SECOND KERNEL: the user does not want it" in output
    assert output.partition("==> 5 tests ran on no kernel:\n")[2].splitlines() == [
        "another reason:",
        "    test_x.py::test_skipped",
        "the kernel has everywhere:",
        "    test_x.py::test_without",
        "the kernel lacks nowhere:",
        "    test_x.py::test_lacking",
        "    test_x.py::test_plugin[odd]",
        "    test_x.py::test_plugin[both]",
    ]


def test_an_unknown_feature_is_an_error(tmp_path: Path) -> None:
    status, output = run(tmp_path, "--second", "no", tests=TESTS.replace("nowhere", "elsewhere"))
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "needs elsewhere; the features are nowhere, everywhere" in output


def test_a_missing_feature_is_an_error_where_nothing_may_be_skipped(tmp_path: Path) -> None:
    status, output = run(tmp_path, "--second", "no", options=["--no-kernel-skips"])
    assert status == pytest.ExitCode.TESTS_FAILED
    assert "the kernel lacks nowhere" in output
    assert "2 passed, 2 skipped, " in output
    assert "3 errors" in output


@pytest.mark.parametrize(
    ("tests", "parts"),
    [
        (["a::1"], [["a::1"]]),
        (["a::1", "b::1", "a::2"], [["a::1", "a::2"], ["b::1"]]),
        (["a::1", "b::1", "b::x[::]", "c::1"], [["b::1", "b::x[::]"], ["a::1", "c::1"]]),
    ],
)
def test_guests_share_files(tests: list[str], parts: list[list[str]]) -> None:
    assert split(tests, 2) == parts


def test_guests_share_a_file_that_takes_long() -> None:
    tests = [f"a::{number}" for number in range(100)]
    parts = split(tests, 2)
    assert sorted(map(len, parts)) == [48, 52]
    assert sorted(test for part in parts for test in part) == sorted(tests)
