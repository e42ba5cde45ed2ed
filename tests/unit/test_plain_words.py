"""Pages, docstrings and comments use the glossary's words; each forbidden term has the one to use instead.

`CHECKED` lists the checked files.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, NamedTuple

import pytest

from plugin_table import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Patterns of files below the root.
CHECKED = (
    "README.md",
    "conftest.py",
    "docs/*.md",
    "plugins/*/README.md",
    "cni/**/*.py",
    "plugins/**/*.py",
    "build/**/*.py",
    "build/**/*.md",
    "tests/**/*.py",
    "build/*/*.c",
    "build/*/*.h",
)
# Quotes of commands, their output and files.
_C_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
# A string may contain "#". This takes a tenth of the time of `tokenize`.
_STRING_OR_COMMENT = re.compile(
    r'"""(?:\\.|[^\\])*?"""|"(?:\\.|[^"\\\n])*"|'
    r"'''(?:\\.|[^\\])*?'''|'(?:\\.|[^'\\\n])*'|(?P<comment>#[^\n]*)",
    re.DOTALL,
)
_QUOTED = re.compile(r"```(?:console|json|ini)\n.*?```", re.DOTALL)

INSTEAD = {
    r"mend(?:s|ed|ing)?": "repair, rebuild",
    r"bur(?:y|ies|ied)": "replace, restart",
    r"crews?": "worker pool",
    r"disguises?": "caller context",
    r"somebody|whoever": "name the actor",
    r"be nobody|being nobody": "reset",
    r"ta(?:ke|kes|ken|king) away": "delete, remove",
    r"tr(?:y|ies|ied) out": "probe, test",
    r"is to go|are to go": "is stale",
    r"what is left|is left of": "remaining",
    r"made again|make again|makes again": "restore, rebuild",
    r"knowing the caller": "authenticate the peer",
    r"had better": "should",
}
# How a docstring may not begin.
OPENINGS = {
    "Give": "Return",
    "Gives": "Return",
    "Tell": "Return whether",
    "Tells": "Return whether",
    "Say": "Return, print",
    "Says": "Return, print",
    "Have": "an imperative verb",
    "Be": "an imperative verb",
    "What": "the subject",
    "Who": "the subject",
    "Whose": "the subject",
    "Whoever": "the subject",
    "Where": "the subject",
    "That": "the subject",
}


class Text(NamedTuple):
    """A piece of prose and where it stands."""

    line: int
    text: str
    is_docstring: bool = False


def read(path: Path) -> list[Text]:
    """Return the prose of a file: a page's lines, or the docstrings and comments of a program."""
    source = path.read_text()
    if path.suffix in {".c", ".h"}:
        return list(_c_comments(source))
    if path.suffix != ".py":
        blank = _QUOTED.sub(lambda match: "\n" * match[0].count("\n"), source)
        return [Text(number, line) for number, line in enumerate(blank.splitlines(), 1)]
    return [*_docstrings(ast.parse(source)), *_comments(source)]


def _docstrings(tree: ast.Module) -> Iterator[Text]:
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (
            text := ast.get_docstring(node)
        ):
            yield Text(getattr(node, "lineno", 1), text, is_docstring=True)
        # A definition is a statement. The expressions are most of a tree.
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            inner = getattr(node, field, [])
            todo += inner if isinstance(inner, list) else []


def _comments(source: str) -> Iterator[Text]:
    for match in _STRING_OR_COMMENT.finditer(source):
        if match["comment"]:
            yield Text(source.count("\n", 0, match.start()) + 1, match["comment"])


def _c_comments(source: str) -> Iterator[Text]:
    for match in _C_COMMENT.finditer(source):
        yield Text(source.count("\n", 0, match.start()) + 1, match[0])


def objections(texts: list[Text]) -> Iterator[str]:
    for each in texts:
        # Names in backticks are code.
        prose = re.sub(r"`[^`]*`", "", each.text)
        for term, instead in INSTEAD.items():
            if match := re.search(rf"\b(?:{term})\b", prose, re.IGNORECASE):
                yield f'{each.line}: "{match[0]}", use: {instead}'
        first = each.text.split(maxsplit=1)[0] if each.text.split() else ""
        if each.is_docstring and first in OPENINGS:
            yield f'{each.line}: a docstring begins with "{first}", use: {OPENINGS[first]}'


@pytest.mark.parametrize("pattern", CHECKED)
def test_words_are_plain(pattern: str) -> None:
    files = sorted(ROOT.glob(pattern))
    assert files
    assert [f"{path.relative_to(ROOT)}:{each}" for path in files for each in objections(read(path))] == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('"""Give the name."""\n', "Return"),
        ('def f() -> None:\n    """Tell whether it is."""\n', "Return whether"),
        ("# The host mends it.\n", "repair"),
        ('class A:\n    """A crew."""\n', "worker pool"),
    ],
)
def test_a_forbidden_word_is_found(tmp_path: Path, source: str, expected: str) -> None:
    path = tmp_path / "sample.py"
    path.write_text(source)
    assert [each for each in objections(read(path)) if expected in each]


def test_comments_of_c_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "sample.c"
    path.write_text("int mend;\n/* The host\n * mends it. */\n// A crew.\n")
    assert list(objections(read(path))) == [
        '2: "mends", use: repair, rebuild',
        '4: "crew", use: worker pool',
    ]


def test_code_is_not_prose(tmp_path: Path) -> None:
    path = tmp_path / "sample.py"
    path.write_text('"""Return `mend` of the table."""\nmend = 1\n')
    assert list(objections(read(path))) == []
    page = tmp_path / "page.md"
    page.write_text("```console\n$ pycni gc\nNothing of network pycni is to go.\n```\n\nThe crew.\n")
    assert [each for each in objections(read(page)) if "crew" in each] == ['6: "crew", use: worker pool']
    assert len(list(objections(read(page)))) == 1
