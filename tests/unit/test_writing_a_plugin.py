"""docs/writing-a-plugin.md quotes files of the tree as they are, and names what there is."""

from __future__ import annotations

import re

import layout
from cni.operations.properties import Property
from plugin_table import ROOT

PAGE = (ROOT / "docs" / "writing-a-plugin.md").read_text()


def test_quoted_files_are_up_to_date() -> None:
    quoted = re.findall(r"```python\n# (plugins/\S+)\n(.*?)```", PAGE, re.DOTALL)
    assert len(quoted) == 2
    for path, text in quoted:
        assert text == (ROOT / path).read_text(), path


def test_every_field_of_a_property_is_described() -> None:
    rows = re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)
    described = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert set(Property._fields) <= described


def test_every_module_of_the_template_is_described() -> None:
    for name in layout.TEMPLATE_MODULES:
        assert f"{name}.py`" in PAGE, name
