"""Write docs/api.md from the docstrings and signatures of the library.

    python build/api_page.py            write it
    python build/api_page.py --check    only report that it is out of date, exit status 1

The sources are parsed, not imported: the page does not depend on the machine that makes it.
"""

from __future__ import annotations

import ast
import re
import sys
from typing import TYPE_CHECKING, NamedTuple

from plugin_table import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE = ROOT / "docs/api.md"
# The modules that plugin authors may use, in the order of the page. The modules of a room follow by name.
FLAT = ("plugin", "conf", "convert", "result", "request", "undo", "errors", "delegate", "versions", "log")
FLAT_LATER = ("addresses", "json_types")
ROOMS = ("interface", "kernel", "state", "ipam", "firewall", "hostports", "operations")
_WIDTH = 110

_PROMISES = {
    "names of `from cni import ...`": "stable: only a new major version changes parameters or meaning",
    'modules in the section "Modules"': "stable in the same way",
    'modules in the section "Rooms"': "for plugin authors, but young: a minor version may change them",
    "`cni.skel.main`, `cni.multicall.main`": "stable as the entry of a plugin's executable",
    "`cni.testing`": "for tests of plugins; not installed with the suite; a minor version may change it",
    "`cni.runtime`, `cni.cli`, `cni.warm`, `cni.program`, modules that are not on this page": "internal",
    "names that begin with `_`": "internal",
    "files on disk, names and rules in the kernel": "as the Go plugins have them: "
    "[migrating-from-go.md](migrating-from-go.md)",
}
HEAD = f"""\
# API for plugin authors

`make pages` writes this page from the docstrings and signatures of the library.
[writing-a-plugin.md](writing-a-plugin.md) shows the API at work.

## What stays stable

| part | promise |
| --- | --- |
{chr(10).join(f"| {part} | {promise} |" for part, promise in _PROMISES.items())}

Internal parts change without notice. Functions raise `CniError` with the code that their text names, or
`ValueError` where their text says so.
"""


class Name(NamedTuple):
    """A public function, class or value of a module: its signature and the first sentence of its text."""

    signature: str
    summary: str
    members: tuple[Name, ...] = ()


def main() -> int:
    """Write or check the page; 1 if a checked page is out of date."""
    text = render(ROOT)
    if "--check" not in sys.argv:
        PAGE.write_text(text)
    elif not PAGE.is_file() or PAGE.read_text() != text:
        sys.stderr.write(f"{PAGE} is out of date: run make pages\n")
        return 1
    return 0


def render(root: Path) -> str:
    """Return the text of the page for the library below `root`."""
    library = root / "cni"
    lines = [HEAD, "## Names of the package", "", *list_exports(library), "", "## Modules", ""]
    for name in (*FLAT, *FLAT_LATER):
        if (library / f"{name}.py").is_file():
            lines += _module(library / f"{name}.py", f"cni.{name}", is_whole=True)
    lines += ["## Rooms", ""]
    for room in ROOMS:
        for path in sorted((library / room).rglob("*.py")):
            module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            lines += _module(path, module, is_whole=False)
    return "\n".join(lines).rstrip() + "\n"


def list_exports(library: Path) -> Iterator[str]:
    """Yield a line for each module that has names of the package."""
    tree = ast.parse((library / "__init__.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cni."):
            names = ", ".join(f"`{each.name}`" for each in node.names)
            yield f"- of `{node.module}`: {names}"


def _module(path: Path, module: str, *, is_whole: bool) -> list[str]:
    """Return the lines of a module; of a room's module no constants."""
    tree = ast.parse(path.read_text())
    names = [each for node in tree.body for each in _names(node, is_whole=is_whole)]
    if not names:
        return []
    lines = [f"### {module}", "", _first_paragraph(tree), ""]
    for each in names:
        lines.append(_entry(each))
        lines += [f"  {_entry(member)}" for member in each.members]
    return [*lines, ""]


def _entry(name: Name) -> str:
    return f"- `{name.signature}`" + (f": {name.summary}" if name.summary else "")


def _names(node: ast.stmt, *, is_whole: bool) -> Iterator[Name]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
        if isinstance(node, ast.FunctionDef):
            yield Name(_signature(node), _summary(node))
        else:
            yield Name(_class(node), _summary(node), tuple(_members(node)))
    elif is_whole and isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        name = node.targets[0].id
        value = ast.unparse(node.value)
        if not name.startswith("_") and "TypeVar" not in value:
            yield Name(f"{name} = {_short(value)}", "")


def _members(node: ast.ClassDef) -> Iterator[Name]:
    meanings = _meanings(node)
    for each in node.body:
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
            name = each.target.id
            default = f" = {ast.unparse(each.value)}" if each.value else ""
            if not name.startswith("_"):
                yield Name(f"{name}: {ast.unparse(each.annotation)}{_short(default)}", meanings.get(name, ""))
        elif isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name):
            name = each.targets[0].id
            if not name.startswith("_") and name != "model_config":
                yield Name(f"{name} = {_short(ast.unparse(each.value))}", "")
        elif isinstance(each, ast.FunctionDef) and not each.name.startswith("_"):
            yield Name(_signature(each), _summary(each))


def _class(node: ast.ClassDef) -> str:
    made = next(
        (each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"), None
    )
    bases = ", ".join(ast.unparse(each) for each in node.bases)
    if made:
        return f"class {node.name}({_arguments(made)})"
    return f"class {node.name}({bases})" if bases else f"class {node.name}"


def _signature(node: ast.FunctionDef) -> str:
    decorators = {ast.unparse(each) for each in node.decorator_list}
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    if decorators & {"property", "cached_property"}:
        return f"{node.name}{returns}"
    return f"{node.name}({_arguments(node)}){returns}"


def _arguments(node: ast.FunctionDef) -> str:
    text = ast.unparse(node.args)
    return re.sub(r"^(self|cls)(, |$)", "", text)


def _summary(node: ast.FunctionDef | ast.ClassDef) -> str:
    """Return the first paragraph of a function's docstring, all of a class's apart from its attributes."""
    if isinstance(node, ast.FunctionDef):
        return _first_paragraph(node)
    return " ".join((ast.get_docstring(node) or "").partition("Attributes:\n")[0].split())


def _meanings(node: ast.ClassDef) -> dict[str, str]:
    """Return the text of each field in the section "Attributes" of a class's docstring."""
    _, _, section = (ast.get_docstring(node) or "").partition("Attributes:\n")
    entries = re.split(r"^ {4}(\w+): ", section.partition("\n\n")[0], flags=re.MULTILINE)[1:]
    return {name: " ".join(text.split()) for name, text in zip(entries[::2], entries[1::2], strict=True)}


def _first_paragraph(node: ast.FunctionDef | ast.ClassDef | ast.Module) -> str:
    return " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())


def _short(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]} ..."


if __name__ == "__main__":
    sys.exit(main())
