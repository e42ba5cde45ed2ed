"""Pages that promise something name tests that exist, and leave no promise without one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from plugin_table import ROOT

if TYPE_CHECKING:
    from pathlib import Path

FILES = {
    path.name: path.read_text()
    for folder in ("tests", "plugins")
    for path in (ROOT / folder).rglob("test_*.py")
}
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "plugins").glob("*/README.md")])
# `test_x.py`, `test_x.py::test_y`, or `::test_y` of the file that was named last.
NAMED = re.compile(r"`(?:(?:[\w-]+/)*(test_\w+\.py))?(?:::(test_\w+))?`")
# Section of a page, and the beginnings of what tells a limit there and promises nothing.
PROMISES = [
    ("docs/security.md", "## What runs, and as whom", ()),
    ("docs/security.md", "## What holds", ()),
    ("docs/warm-start.md", "## What holds", ()),
    ("docs/warm-start.md", "## Security", ("Namespaces of the kinds", "SELinux, AppArmor and Landlock")),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    file, missing = "", []
    for name, test in NAMED.findall(page.read_text()):
        file = name or file
        if (name and name not in FILES) or (test and f"def {test}(" not in FILES.get(file, "")):
            missing.append(f"{file}::{test}")
    assert missing == []


@pytest.mark.parametrize(("page", "title", "limits"), PROMISES)
def test_every_promise_names_a_test(page: str, title: str, limits: tuple[str, ...]) -> None:
    section = (ROOT / page).read_text().split(f"\n{title}\n")[1].split("\n## ")[0]
    promises = [each for each in section.split("\n- ")[1:] if not each.startswith(limits)]
    assert promises
    assert [each for each in promises if not re.search(r"`[\w/:.]*test_\w+|`tests/", each)] == []
