"""The page of tested networks has the row of each list in tests/data/networks, and no others."""

from __future__ import annotations

import json
from typing import Any

from plugin_table import ROOT, declared

PAGE = ROOT / "docs/tested-networks.md"
TABLE: list[dict[str, Any]] = json.loads((ROOT / "tests/data/networks.json").read_text())
STAND_INS: dict[str, Any] = json.loads((ROOT / "tests/data/stand_ins.json").read_text())
OWN = {name for plugin in declared() for name in plugin.names}


def make_row(row: dict[str, Any]) -> str:
    """Return the line of a list: plugins of third parties have an asterisk if there is a stand-in."""
    document = json.loads((ROOT / "tests/data/networks" / row["what"]).read_text())
    plugins = document.get("plugins", [document])
    types = [name for each in plugins for name in (each["type"], each.get("ipam", {}).get("type")) if name]
    named = [
        f"{name}\\*" if name in STAND_INS and not isinstance(STAND_INS[name], str) else name for name in types
    ]
    traffic = f"refused: `{row['error']}`" if "error" in row else ", ".join(row["traffic"])
    cells = [row["project"], document.get("cniVersion", "none"), " ".join(dict.fromkeys(named)), traffic]
    return f"| {' | '.join(cells)} |"


def test_the_page_has_all_rows() -> None:
    lines = PAGE.read_text().splitlines()
    start = lines.index("| --- | --- | --- | --- |") + 1
    shown = lines[start : start + len(TABLE) + 1]
    assert shown == [*map(make_row, TABLE)]


def test_each_plugin_is_of_this_suite_or_stands_for_one() -> None:
    for row in TABLE:
        for name in make_row(row).split("|")[3].split():
            assert name in OWN | STAND_INS.keys() | {f"{each}\\*" for each in STAND_INS} or "error" in row
