"""The pages name files and functions that exist, and docs/design.md answers a newcomer's questions."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

import pytest

from plugin_table import ROOT

if TYPE_CHECKING:
    from pathlib import Path

DESIGN = (ROOT / "docs/design.md").read_text()
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "plugins").glob("*/README.md")])
FOLDERS = "cni|plugins|build|tests|conf|docs"
FILE = re.compile(rf"`((?:{FOLDERS})/[\w./-]+\.(?:py|c|h|md|sh|conflist|json))`")
QUESTIONS = (
    "DEL find its veth",
    "refuses a port",
    "gates of spec versions",
    "add a key to",
    "ADD undo itself",
    "lease taken",
    "warm server is gone",
    "GC know what is stale",
    "error text in JSON's words",
    "add a plugin",
)


def rows() -> list[list[str]]:
    """Return the cells of each row of the table of questions."""
    section = DESIGN.split("\n## Ten questions\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ") and line.count("|") == 4]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def defines(text: str, name: str) -> bool:
    """Return whether a source has a function, class or method of this name, in Python or in C."""
    return bool(re.search(rf"^\s*(def|class) {name}\b|^[a-z][\w *]*\b{name}\([^;]*$", text, re.MULTILINE))


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_is_answered_in_two_hops(question: str) -> None:
    [row] = [each for each in rows() if question in each[0]]
    hops = [re.findall(FILE, cell) for cell in row[1:]]
    assert [len(files) for files in hops] == [1, 1]
    for cell, [file] in zip(row[1:], hops, strict=True):
        text = (ROOT / file).read_text()
        names = [each for each in re.findall(r"`([A-Za-z_]+)`", cell) if not each.isupper()]
        assert names or file.endswith(".md")
        assert [each for each in names if not defines(text, each)] == [], file


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    # A path may be within a plugin's folder.
    names = FILE.findall(page.read_text())
    assert [
        each for each in names if not (ROOT / each).is_file() and not [*ROOT.glob(f"plugins/*/{each}")]
    ] == []


@cache
def anchors(page: Path) -> set[str]:
    """Return what a link can name in a file: each heading of a page as GitHub writes it."""
    if page.suffix != ".md":
        return set()
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    missing = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if ":" in path:
            continue
        if not file.exists() or (anchor and anchor not in anchors(file)):
            missing.append(target)
    assert missing == []


def test_every_dependency_has_its_reason() -> None:
    table = DESIGN.split("\n## Dependencies\n")[1].split("\n## ")[0]
    text = (ROOT / "pyproject.toml").read_text()
    groups = re.findall(r"^(?:dependencies|test|lint|bundle) = \[(.*)\]", text, re.MULTILINE)
    names = {each for group in groups for each in re.findall(r'"([a-z0-9-]+)>=', group)}
    assert len(names) > 8
    assert [each for each in names if each not in table.lower()] == []
