"""Write the table of keys into each plugin's README.md, from the schema that `pycni schema` prints.

    python build/key_tables.py            write them
    python build/key_tables.py --check    only report pages that are out of date, exit status 1

A page marks the place by two comments. In a page without them the first table of keys is replaced.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from typing import TYPE_CHECKING, Any

from cni.cli.schema import own_keys
from plugin_table import Declared, declared

if TYPE_CHECKING:
    from collections.abc import Iterator

BEGIN = "<!-- Keys: made by build/key_tables.py from the model. -->"
END = "<!-- End of keys. -->"
_HEAD = ["| Key | Type | Default | What it does |", "|-----|------|---------|--------------|"]
_WORDS = {"integer": "number"}


def main() -> int:
    """Write or check all pages; 1 if a checked page is out of date."""
    stale = [each for each in declared() if is_stale(each)]
    for each in stale:
        page = each.folder / "README.md"
        if "--check" in sys.argv:
            sys.stderr.write(f"{page} is out of date: run make pages\n")
        else:
            page.write_text(updated(page.read_text(), table(each)))
    return 1 if stale and "--check" in sys.argv else 0


def is_stale(plugin: Declared) -> bool:
    """Return whether a page lacks the table that its plugin's model makes."""
    text = (plugin.folder / "README.md").read_text()
    return updated(text, table(plugin)) != text


def updated(text: str, lines: list[str]) -> str:
    """Return a page with the table in place of the one that it has."""
    marked = re.search(f"{re.escape(BEGIN)}.*?{re.escape(END)}", text, re.DOTALL)
    first = re.search(r"^\| *Key\b.*\n(?:\|.*\n)+", text, re.MULTILINE)
    new = "\n".join([BEGIN, *lines, END])
    if marked:
        return text.replace(marked[0], new)
    if not lines:
        return text
    return text.replace(first[0], f"{new}\n") if first else f"{text}\n## Keys\n\n{new}\n"


def table(plugin: Declared) -> list[str]:
    """Return the lines of a plugin's table, [] if it has no keys of its own."""
    module: Any = importlib.import_module(plugin.package)
    rows = list(_rows("", {"properties": own_keys(module.PLUGIN)}))
    return [*_HEAD, *rows] if rows else []


def _rows(path: str, parent: dict[str, Any]) -> Iterator[str]:
    for key, shown in parent.get("properties", {}).items():
        within, place = shown, f"{path}{key}"
        nested = place
        while within.get("type") == "array":
            within, nested = within.get("items", {}), f"{nested}[]"
        # An object needs no row of its own: its keys have theirs.
        if shown.get("type") != "object" or "properties" not in shown:
            default = "required" if key in parent.get("required", []) else _default(shown)
            cells = [f"`{place}`", _type(shown), default, shown.get("description", "")]
            yield f"| {' | '.join(cells)} |".replace("|  |", "| |")
        yield from _rows(f"{nested}.", within)


def _default(shown: dict[str, Any]) -> str:
    default = shown.get("default", [])
    return "" if default in ([], "") else f"`{json.dumps(default)}`"


def _type(shown: dict[str, Any], *, plural: bool = False) -> str:
    if "anyOf" in shown:
        return " or ".join(_type(each) for each in shown["anyOf"])
    if "enum" in shown:
        return " or ".join(f"`{json.dumps(each)}`" for each in shown["enum"])
    name = _WORDS.get(shown.get("type", ""), shown.get("type", "any"))
    if name == "array":
        name = f"{'arrays' if plural else 'array'} of {_type(shown.get('items', {}), plural=True)}"
    elif plural:
        name += "s"
    bounds = [str(shown[each]) for each in ("minimum", "maximum") if each in shown]
    return f"{name}, {' to '.join(bounds)}" if bounds else name


if __name__ == "__main__":
    sys.exit(main())
