"""Names in plugin.toml: each becomes a file in the folder of the runtime's plugins."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from plugin_table import declared
from tests.support import scene

if TYPE_CHECKING:
    from pathlib import Path


def write(root: Path, name: str) -> None:
    """Write a plugin folder with one name."""
    (root / "plugins/x/cni_x").mkdir(parents=True)
    text = f'names = [{json.dumps(name)}]\nsummary = "x"\n'
    (root / "plugins/x/plugin.toml").write_text(text)


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/b", "pycni", "-x", ".x", "a b", "x\n"])  # noqa: S108 - a name
def test_a_name_that_cannot_be_an_executable_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path, name)
    with pytest.raises(ValueError, match="cannot have the name") as caught:
        declared(tmp_path)
    assert json.dumps(name) in str(caught.value)


@pytest.mark.parametrize("name", ["x", scene.IPAM, "x.y", "X_1"])
def test_other_names_are_taken(tmp_path: Path, name: str) -> None:
    write(tmp_path, name)
    assert [each.names for each in declared(tmp_path)] == [(name,)]
