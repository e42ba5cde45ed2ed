"""The wheel: every plugin's package beside the library, the table of their names, nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING
from zipfile import ZipFile

import pytest

from plugin_table import ROOT, declared, packages

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    folder: Path = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [path] = folder.glob("*.whl")
    return ZipFile(path)


def test_every_plugin_is_at_the_top_level(wheel: ZipFile) -> None:
    for plugin in declared():
        assert f"{plugin.package}/__init__.py" in wheel.namelist()


def test_nothing_but_packages_is_in_it(wheel: ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" not in name}
    assert tops == {"cni", *(plugin.package for plugin in declared())}


def test_the_table_of_names_is_the_declared_one(wheel: ZipFile) -> None:
    assert json.loads(wheel.read("cni/plugins.json")) == packages(declared())


def test_no_command_but_pycni_is_installed(wheel: ZipFile) -> None:
    [scripts] = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert wheel.read(scripts).decode().split() == ["[console_scripts]", "pycni", "=", "cni.cli.start:main"]
