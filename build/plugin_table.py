"""Read the plugins from plugins/*/plugin.toml, the only place where a plugin is declared."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Declared(NamedTuple):
    """A plugin folder; the first of `names` is the `type` that configurations use."""

    folder: Path
    package: str
    names: tuple[str, ...]
    summary: str


def declared(root: Path = ROOT) -> list[Declared]:
    """Read all declarations below `root`, sorted by folder. Raises ValueError for an invalid one."""
    plugins = [_read(path) for path in sorted(root.glob("plugins/*/plugin.toml"))]
    names = [name for plugin in plugins for name in plugin.names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"names declared by more than one plugin.toml: {', '.join(twice)}")
    return plugins


def _read(path: Path) -> Declared:
    text = tomllib.loads(path.read_text())
    names, summary = text.get("names"), text.get("summary")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f'{path}: "names" must be an array of one or more strings')
    if not isinstance(summary, str) or not summary:
        raise ValueError(f'{path}: "summary" must be a string that is not empty')
    [package] = [each.name for each in path.parent.glob("cni_*") if each.is_dir()] or [""]
    if not package:
        raise ValueError(f"{path}: the folder has no package cni_*")
    return Declared(path.parent, package, tuple(names), summary)


def packages(plugins: list[Declared]) -> dict[str, str]:
    """Return the table from plugin name to package name."""
    return {name: plugin.package for plugin in plugins for name in plugin.names}


def show(plugins: list[Declared]) -> str:
    """Return the table as the JSON text of `plugins.json`."""
    return json.dumps(packages(plugins), indent=1, sort_keys=True) + "\n"
