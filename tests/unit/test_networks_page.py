"""The page of tested networks has the row of each list in tests/data/networks, and no others.

`python -m tests.unit.test_networks_page` writes the rows into the page.
"""

from __future__ import annotations

import json
from typing import Any

from plugin_table import ROOT, declared

PAGE = ROOT / "docs/tested-networks.md"
TABLE: list[dict[str, Any]] = json.loads((ROOT / "tests/data/networks.json").read_text())
STAND_INS: dict[str, Any] = json.loads((ROOT / "tests/data/stand_ins.json").read_text())
OWN = {name for plugin in declared() for name in plugin.names}


RULE = "| --- | --- | --- | --- |\n"
# Stand-ins; a string in the table is a plugin of this suite under another name, which is none.
THIRD = {name for name, own in STAND_INS.items() if not isinstance(own, str)} - OWN


def make_row(row: dict[str, Any]) -> str:
    """Return the line of a list: plugins of third parties have an asterisk if there is a stand-in."""
    document = json.loads((ROOT / "tests/data/networks" / row["what"]).read_text())
    plugins = document.get("plugins", [document])
    types = [name for each in plugins for name in (each["type"], each.get("ipam", {}).get("type")) if name]
    named = [f"{name}\\*" if name in THIRD else name for name in dict.fromkeys(types)]
    traffic = f"refused: `{row['error']}`" if "error" in row else ", ".join(row["traffic"])
    cells = [row["project"], document.get("cniVersion", "none"), " ".join(named), traffic]
    return f"| {' | '.join(cells)} |"


def test_the_page_has_all_rows() -> None:
    head, rows = PAGE.read_text().split(RULE)
    assert head
    assert rows.splitlines() == [*map(make_row, TABLE)]


def test_each_plugin_is_of_this_suite_or_has_a_stand_in() -> None:
    rows = [row for row in TABLE if "error" not in row]
    named = {name.removesuffix("\\*") for row in rows for name in make_row(row).split("|")[3].split()}
    assert named <= OWN | STAND_INS.keys()


if __name__ == "__main__":
    PAGE.write_text(PAGE.read_text().split(RULE)[0] + RULE + "".join(f"{make_row(row)}\n" for row in TABLE))
