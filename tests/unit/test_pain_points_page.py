"""The page of pain points names tests that exist, and every test that was written for a row."""

from __future__ import annotations

import re

from plugin_table import ROOT

PAGE = ROOT / "docs/pain-points.md"
FILES = {path.name: path for folder in ("tests", "plugins") for path in (ROOT / folder).rglob("test_*.py")}
# A file, and the tests of it that are named behind it.
NAMED = re.compile(r"`(test_\w+\.py)`((?:: `test_\w+`(?:, `test_\w+`)*)?)")


def _rows() -> list[str]:
    return [line for line in PAGE.read_text().splitlines() if re.match(r"\| \d+ \|", line)]


def test_every_test_that_is_named_exists() -> None:
    missing = []
    for row in _rows():
        assert len(row.split("|")) == 6, row
        for file, tests in NAMED.findall(row):
            text = FILES[file].read_text() if file in FILES else ""
            missing += [file] * (not text)
            missing += [name for name in re.findall(r"test_\w+", tests) if f"def {name}(" not in text]
    assert missing == []


def test_every_test_of_a_row_is_named_in_it() -> None:
    rows = {int(row.split("|")[1]): row for row in _rows()}
    written = [
        (int(number), name)
        for path in FILES.values()
        for name, number in re.findall(r"^def (test_pain_(\d+)_\w+)\(", path.read_text(), re.MULTILINE)
    ]
    assert written
    assert [name for number, name in written if f"`{name}`" not in rows.get(number, "")] == []


def test_every_row_names_a_test_unless_it_says_why_not() -> None:
    bare = [row for row in _rows() if not any(tests for _, tests in NAMED.findall(row))]
    unexplained = [row for row in bare if not re.search(r"a wish", row.split("|")[3])]
    assert unexplained == []
    assert bare


def test_rows_are_in_order_and_none_is_left_out() -> None:
    numbers = [int(row.split("|")[1]) for row in _rows()]
    assert numbers == [*range(1, 75)]
