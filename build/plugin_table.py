"""Read the plugins from plugins/*/plugin.toml, the only place where a plugin is declared.

`names` and `summary` are required. The other keys are facts for the tests that run with every plugin;
docs/testing.md explains them.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
INTERFACE, CHAINED, IPAM = "interface", "chained", "ipam"
_KINDS = (INTERFACE, CHAINED, IPAM)
# A name becomes a file in BINDIR, where "pycni" is the folder of the suite.
_NAME = re.compile(r"(?!pycni$)[A-Za-z0-9][A-Za-z0-9._-]*")


class Declared(NamedTuple):
    """A plugin folder; the first of `names` is the `type` that configurations use.

    `kind` is the plugin's place in a network: it makes an interface, is chained behind a plugin that does, or
    assigns addresses for one. `keeps_state` is false if the plugin leaves nothing on the host that DEL must
    remove. `backend_key` is the key that selects the firewall backend, "" for a plugin without rules.
    `needs_kernel` has features of tests/kernel/features.toml: without them ADD of the example fails.
    `needs_uplink` says that it fails on a host without a default route, and `reached_by_host` is false if the
    host does not reach the containers of the example. `needs_link` says that ADD of the example needs the
    link that its prevResult has. `needs_device` says that it takes the device `spare0` of the host, so that
    one container at a time can be attached. `needs_server` says that it needs a server on the network: only
    tests in the plugin's folder, which start one, call its ADD.
    """

    folder: Path
    package: str
    names: tuple[str, ...]
    summary: str
    kind: str = INTERFACE
    keeps_state: bool = True
    backend_key: str = ""
    needs_kernel: tuple[str, ...] = ()
    needs_uplink: bool = False
    reached_by_host: bool = True
    needs_link: bool = False
    needs_device: bool = False
    needs_server: bool = False


def declared(root: Path = ROOT) -> list[Declared]:
    """Read all declarations below `root`, sorted by folder. Raises ValueError for an invalid one."""
    plugins = [_read(path) for path in sorted(root.glob("plugins/*/plugin.toml"))]
    names = [name for plugin in plugins for name in plugin.names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"names declared by more than one plugin.toml: {', '.join(twice)}")
    return plugins


def _read(path: Path) -> Declared:
    facts = tomllib.loads(path.read_text())
    names, kind = facts.get("names"), facts.get("kind", INTERFACE)
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f'{path}: "names" must be an array of one or more strings')
    if refused := [name for name in names if not _NAME.fullmatch(name)]:
        raise ValueError(f"{path}: a plugin's executable cannot have the name {json.dumps(refused[0])}")
    if not isinstance(facts.get("summary"), str) or not facts["summary"]:
        raise ValueError(f'{path}: "summary" must be a string that is not empty')
    if kind not in _KINDS:
        raise ValueError(f'{path}: "kind" must be one of {", ".join(_KINDS)}')
    _check_facts(path, facts)
    [package] = [each.name for each in path.parent.glob("cni_*") if each.is_dir()] or [""]
    if not package:
        raise ValueError(f"{path}: the folder has no package cni_*")
    arrays = {key: tuple(value) for key, value in facts.items() if isinstance(value, list)}
    return Declared(path.parent, package, **facts | arrays)


def _check_facts(path: Path, facts: dict[str, Any]) -> None:
    """Raise ValueError if a key is unknown, or a fact with a default is of another type than the default."""
    known = {"names", "summary", *Declared._field_defaults}
    if unknown := sorted(facts.keys() - known):
        raise ValueError(f"{path}: unknown keys {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    for key, default in Declared._field_defaults.items():
        value = facts.get(key, default)
        if (tuple if isinstance(value, list) else type(value)) is not type(default):
            raise ValueError(f'{path}: "{key}" must be like {json.dumps(default)}')


def packages(plugins: list[Declared]) -> dict[str, str]:
    """Return the table in which executables look up their name: plugin name to package name."""
    return {name: plugin.package for plugin in plugins for name in plugin.names}


def show(plugins: list[Declared]) -> str:
    """Return the table as the JSON text of `plugins.json`."""
    return json.dumps(packages(plugins), indent=1, sort_keys=True) + "\n"
