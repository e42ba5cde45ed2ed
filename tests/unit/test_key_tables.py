"""Model, JSON Schema and the table of keys in a plugin's README are one, for every plugin."""

from __future__ import annotations

import importlib
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

import key_tables
from cni.cli import main, schema
from cni.conf import NetConf, Str
from cni.plugin import Plugin
from cni.result import Result
from plugin_table import Declared, declared

if TYPE_CHECKING:
    from collections.abc import Iterator

PLUGINS = declared()


def plugin_of(folder: Declared) -> Plugin[Any]:
    module: Any = importlib.import_module(folder.package)
    plugin: Plugin[Any] = module.PLUGIN
    return plugin


def undescribed(path: str, shown: dict[str, Any]) -> Iterator[str]:
    while "items" in shown:
        shown = shown["items"]
    for key, each in shown.get("properties", {}).items():
        if not each.get("description"):
            yield f"{path}.{key}"
        yield from undescribed(f"{path}.{key}", each)


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda each: each.folder.name)
def test_the_page_has_the_table_that_the_model_makes(folder: Declared) -> None:
    """Run `make pages` when this fails: the table is the model's."""
    lines = key_tables.table(folder)
    text = (folder.folder / "README.md").read_text()
    assert "\n".join(lines) in text
    assert not key_tables.is_stale(folder)


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda each: each.folder.name)
def test_every_key_is_described(folder: Declared) -> None:
    """The text is in the section Attributes of the model's docstring."""
    assert list(undescribed("", schema.schema_of(plugin_of(folder)))) == []


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda each: each.folder.name)
def test_the_schema_has_the_fields_of_the_model(folder: Declared) -> None:
    plugin = plugin_of(folder)
    shown = schema.schema_of(plugin)
    assert shown["title"] == plugin.name
    assert set(shown["properties"]) == {
        field.alias or name for name, field in plugin.conf.model_fields.items()
    }
    defaults = {
        (field.alias or name): field.default
        for name, field in plugin.conf.model_fields.items()
        if isinstance(field.default, str | int)
    }
    assert {key: shown["properties"][key].get("default") for key in defaults} == defaults


class Own(NetConf):
    """A configuration."""

    text: Str = "x"


class Folded(NetConf):
    """A configuration.

    Attributes:
        text: The first line,
            `and` the second.
    """

    text: Str = "x"


def test_the_table_is_written_where_the_page_has_one() -> None:
    lines = ["| Key | Type |", "|-----|------|", "| `a` | string |"]
    new = "\n".join([key_tables.BEGIN, *lines, key_tables.END])
    marked = f"# x\n\n{key_tables.BEGIN}\nold\n{key_tables.END}\n\nend\n"
    assert key_tables.updated(marked, lines) == f"# x\n\n{new}\n\nend\n"
    by_hand = "# x\n\n| Key | Meaning |\n|---|---|\n| `b` | old |\n\nend\n"
    assert key_tables.updated(by_hand, lines) == f"# x\n\n{new}\n\nend\n"
    assert key_tables.updated("# x\n", lines) == f"# x\n\n## Keys\n\n{new}\n"


def test_a_key_without_a_description_is_found() -> None:
    plugin = Plugin("own", "about", Own, lambda *_: Result(), lambda *_: None)
    assert "text" in schema.own_keys(plugin)
    assert list(undescribed("", {"properties": schema.own_keys(plugin)})) == [".text"]


def test_a_description_may_have_several_lines() -> None:
    plugin = Plugin("own", "about", Folded, lambda *_: Result(), lambda *_: None)
    assert schema.own_keys(plugin)["text"]["description"] == "The first line, `and` the second."


def test_the_command_lists_plugins_and_prints_a_schema(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main.run(["schema"]) == 0
    listed = capfdbinary.readouterr().out.decode().splitlines()
    names = {plugin_of(each).name for each in PLUGINS}
    assert {line.split()[0] for line in listed} >= names
    assert main.run(["schema", min(names)]) == 0
    printed = json.loads(capfdbinary.readouterr().out)
    assert printed["type"] == "object"
    assert printed["properties"]["name"]["description"]


def test_an_unknown_plugin_is_refused(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main.run(["schema", "nowhere"]) == 1
    error = capfdbinary.readouterr().err.decode()
    assert 'there is no plugin "nowhere"' in error
    assert all(plugin_of(each).name in error for each in PLUGINS)


def test_a_check_names_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["key_tables.py", "--check"])
    assert key_tables.main() == 0
