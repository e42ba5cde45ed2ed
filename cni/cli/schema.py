"""`pycni schema`: the configuration of a plugin as JSON Schema, made from the plugin's model.

Types, bounds and defaults are the model's fields. Descriptions are the section "Attributes" of the model's
docstring: pydantic's own place for them, `Field(description=...)`, costs every cold start (docs/design.md).
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
import textwrap
from typing import TYPE_CHECKING, Any

from cni.cli.output import print_json, write
from cni.conf import NetConf
from cni.errors import CniError, Code
from cni.json_types import of_field

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from cni.json_types import JsonType
    from cni.plugin import Plugin

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_BOUNDS = {"string": ("minLength", "maxLength"), "array": ("minItems", "maxItems")}
_ATTRIBUTE = re.compile(r"(\w+): (.*)")


def run(name: str) -> None:
    """Print the schema of one plugin, or the names of all if `name` is empty. Raise CniError 7."""
    plugins = find_plugins()
    if not name:
        width = max(map(len, plugins), default=0)
        for each in plugins.values():
            write(f"{each.name:{width}}  {each.about}\n")
        return
    if name not in plugins:
        raise CniError(
            Code.INVALID_CONFIG, f'there is no plugin "{name}"', f"Name one of: {', '.join(plugins)}."
        )
    print_json(schema_of(plugins[name]))


def find_plugins() -> dict[str, Plugin[Any]]:
    """Return the plugins of this installation by name: every package `cni_*` that has one."""
    names = sorted(each.name for each in pkgutil.iter_modules() if each.name.startswith("cni_"))
    packages: list[Any] = [importlib.import_module(each) for each in names]
    found = [each.PLUGIN for each in packages if hasattr(each, "PLUGIN")]
    return {each.name: each for each in sorted(found, key=lambda plugin: plugin.name)}


def schema_of(plugin: Plugin[Any]) -> dict[str, Any]:
    """Return the JSON Schema of a plugin's configuration."""
    return {"$schema": _DIALECT, "title": plugin.name} | _of_model(plugin.conf)


def own_keys(plugin: Plugin[Any]) -> dict[str, Any]:
    """Return the schemas of the keys that the plugin adds to those of every plugin, or reads more closely."""
    common = NetConf.model_fields
    return {
        field.alias or name: _of_key(plugin.conf, name, field)
        for name, field in plugin.conf.model_fields.items()
        if name not in common or field.annotation is not common[name].annotation
    }


def _of_model(model: type[BaseModel]) -> dict[str, Any]:
    fields = model.model_fields.items()
    required = [field.alias or name for name, field in fields if _is_required(field)]
    summary = inspect.cleandoc(model.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    return {
        "description": summary,
        "type": "object",
        "properties": {field.alias or name: _of_key(model, name, field) for name, field in fields},
        **({"required": required} if required else {}),
    }


def _of_key(model: type[BaseModel], name: str, field: FieldInfo) -> dict[str, Any]:
    shown = _of_types(of_field(field))
    if description := _describe(model, name):
        shown["description"] = description
    if not _is_required(field) and field.default_factory is None and field.default is not None:
        shown["default"] = json.loads(json.dumps(field.default, default=str))
    return shown


def _is_required(field: FieldInfo) -> bool:
    # A default outside of the bounds is a value that the model's validator refuses.
    lows = [each.low for each in of_field(field) if each.low is not None]
    return field.is_required() or any(type(field.default) is int and field.default < low for low in lows)


def _of_types(kinds: Iterable[JsonType]) -> dict[str, Any]:
    shown = [_of_type(each) for each in kinds if each.name != "any"]
    if len(shown) == 1:
        return shown[0]
    return {"anyOf": shown} if shown else {}


def _of_type(kind: JsonType) -> dict[str, Any]:
    if kind.model is not None:
        return _of_model(kind.model)
    shown: dict[str, Any] = {"type": kind.name}
    if kind.choices:
        shown["enum"] = list(kind.choices)
    low, high = _BOUNDS.get(kind.name, ("minimum", "maximum"))
    if kind.low is not None:
        shown[low] = kind.low
    if kind.high is not None:
        shown[high] = kind.high
    members = _of_types(kind.items)
    if members:
        shown["items" if kind.name == "array" else "additionalProperties"] = members
    return shown


def _describe(model: type[BaseModel], name: str) -> str:
    """Return what the docstring of a model, or of one that it derives from, says of a field; else ""."""
    texts = (_attributes(each).get(name, "") for each in model.__mro__ if each.__module__ != "pydantic.main")
    return next(filter(None, texts), "")


def _attributes(model: type) -> dict[str, str]:
    _, _, section = inspect.cleandoc(model.__doc__ or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    name = ""
    for line in textwrap.dedent(section).splitlines():
        if start := _ATTRIBUTE.fullmatch(line):
            name = start[1]
            found[name] = start[2]
        elif name and line.startswith(" "):
            found[name] += f" {line.strip()}"
        else:
            break
    return found
