"""Errors about a configuration use JSON's words, name the key and have the right code, for every plugin."""

from __future__ import annotations

import importlib
import json
import re
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import pytest
from pydantic import BeforeValidator, Field

from cni import conf
from cni.conf import Int, Model, NetConf, Str, Within, read
from cni.errors import CniError, Code
from cni.json_types import JsonType, json_type, of_field
from cni.testing import direct
from plugin_table import Declared, declared

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.plugin import Plugin

VALUES: list[Any] = [
    "x",
    "",
    7,
    -7,
    7.5,
    1 << 70,
    True,
    None,
    [],
    ["x"],
    [7],
    [[]],
    [[7]],
    [{}],
    {},
    {"a": 1},
]
NOT_JSON = re.compile(
    r"\b(tuple|list|lists|dict|dictionary|instance|NoneType|None|True|False|str|int|float|bool|integer|mapping"
    r"|sequence|\w+_type|[A-Z]\w+Conf|Input|pydantic)\b"
)
# Of the specification: the Go library decodes these before a plugin runs.
SPEC = {"cniVersion", "name", "type", "ipam", "ipam.type", "dns", "prevResult"}
SPEC_VALUES: list[tuple[str, Any]] = [
    *(("prevResult", each) for each in VALUES if each is not None and not isinstance(each, dict)),
    *(("cniVersion", each) for each in VALUES if each is not None and not isinstance(each, str)),
    *(("name", each) for each in VALUES if each is not None and not isinstance(each, str)),
]


class Place(NamedTuple):
    """A key of a model as a path, each step a key or an index, and the types that it takes."""

    path: tuple[str | int, ...]
    types: tuple[JsonType, ...]

    @property
    def shown(self) -> str:
        steps = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path]
        return "".join(steps).removeprefix(".")


def load(plugin: Declared) -> Plugin[Any]:
    module: Any = importlib.import_module(plugin.package)
    loaded: Plugin[Any] = module.PLUGIN
    return loaded


def example(plugin: Declared) -> dict[str, Any]:
    """Return the first configuration in the plugin's README that is the plugin's."""
    blocks = re.findall(r"```json\n(.*?)```", (plugin.folder / "README.md").read_text(), re.DOTALL)
    for document in map(json.loads, blocks):
        for each in document.get("plugins", [document]):
            if {each.get("type"), each.get("ipam", {}).get("type")} & set(plugin.names):
                return {"cniVersion": "1.1.0", "name": "net1", **each}
    pytest.fail(f"{plugin.folder.name}/README.md has no configuration of the plugin")


def places(model: type[Any], path: tuple[str | int, ...] = ()) -> Iterator[Place]:
    for name, field in model.model_fields.items():
        types = of_field(field)
        if any(isinstance(each, BeforeValidator) for each in field.metadata):
            # It may take other members than the model has, and convert them.
            types = tuple(each._replace(items=(*each.items, JsonType("any"))) for each in types)
        yield from within((*path, field.alias or name), types)


def within(path: tuple[str | int, ...], types: tuple[JsonType, ...]) -> Iterator[Place]:
    yield Place(path, types)
    for each in types:
        if each.model is not None:
            yield from places(each.model, path)
        elif each.name == "array":
            yield from within((*path, 0), each.items)


def put(value: Any, path: tuple[str | int, ...], new: Any) -> Any:
    """Return a document with the value at `path` replaced; what leads there is made."""
    if not path:
        return new
    first, rest = path[0], path[1:]
    if isinstance(first, int):
        members = list(value) if isinstance(value, list) and value else [None]
        return [put(members[0], rest, new), *members[1:]]
    document = value if isinstance(value, dict) else {}
    return document | {first: put(document.get(first), rest, new)}


def is_taken(types: tuple[JsonType, ...], value: Any) -> bool:
    """Return whether a value has one of the JSON types, whatever is in it."""
    if value is None or any(each.name == "any" for each in types):
        return True
    words = {"integer": "a number", "object": "an object", "array": "an array"}
    return any(json_type(value) == words.get(each.name, f"a {each.name}") for each in types)


def refused(plugin: Declared, document: dict[str, Any]) -> CniError | None:
    try:
        conf.parse(json.dumps(document).encode()).read(load(plugin).conf)
    except CniError as error:
        return error
    return None


@pytest.mark.parametrize("plugin", declared(), ids=lambda plugin: plugin.folder.name)
def test_the_readme_shows_a_configuration_that_is_accepted(plugin: Declared) -> None:
    assert refused(plugin, example(plugin)) is None


@pytest.mark.parametrize("plugin", declared(), ids=lambda plugin: plugin.folder.name)
def test_every_key_with_every_json_type(plugin: Declared) -> None:
    model = load(plugin).conf
    asked = wrong = 0
    for place in places(model):
        for value in VALUES:
            error = refused(plugin, put(example(plugin), place.path, value))
            asked += 1
            if is_taken(place.types, value):
                assert error is None or error.code in {Code.INVALID_CONFIG, Code.DECODING_FAILURE}
            else:
                wrong += 1
                assert error is not None, (place, value)
                assert f'"{place.shown}" must be ' in error.msg, (value, error)
                assert error.msg.endswith(f", got {json_type(value)}"), error
                is_spec = place.shown in SPEC or place.path[0] == "dns"
                assert error.code == (Code.DECODING_FAILURE if is_spec else Code.INVALID_CONFIG), error
            if error is not None:
                assert not NOT_JSON.search(f"{error.msg} {error.details}"), (place.shown, value, error)
    assert wrong > 100
    assert asked > wrong


@pytest.mark.parametrize("plugin", declared(), ids=lambda plugin: plugin.folder.name)
def test_keys_that_are_decoded_before_the_plugin_runs(plugin: Declared) -> None:
    usual, subject = example(plugin), load(plugin)
    for key, value in SPEC_VALUES:
        answer = direct.call(subject, "ADD", usual | {key: value})
        assert answer.code == Code.DECODING_FAILURE, (key, value, answer)
        assert f'"{key}" must be ' in answer.msg, (key, value, answer)
        assert not NOT_JSON.search(answer.msg), (key, value, answer)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Inner(Model):
    size: Annotated[Int, Field(ge=1, le=9)] = 1


class Wide(NetConf):
    """A model with types that future models may have."""

    colour: Colour = Colour.RED
    kind: Literal["veth", "bond"] = "veth"
    either: Str | tuple[Inner, ...] = ""
    sizes: dict[str, Int] = Field(default_factory=dict)
    least: Annotated[Int, Field(ge=2)] = 2
    most: Annotated[Int, Within(0, 5)] = 0
    pair: Annotated[tuple[Str, ...], Field(min_length=2)] = ("a", "b")
    short: Annotated[Str, Field(min_length=1, max_length=3)] = "a"
    ratio: Annotated[float, Field(strict=True)] = 1.0


WIDE: list[tuple[dict[str, Any], str]] = [
    ({"colour": "green"}, '"colour" must be "red" or "blue", got "green"'),
    ({"colour": 7}, '"colour" must be "red" or "blue", got a number'),
    ({"kind": "vlan"}, '"kind" must be "veth" or "bond", got "vlan"'),
    ({"kind": []}, '"kind" must be "veth" or "bond", got an array'),
    ({"either": 7}, '"either" must be a string or an array of objects, got a number'),
    ({"sizes": {"a": "x"}}, '"sizes.a" must be a whole number, got a string'),
    ({"sizes": []}, '"sizes" must be an object of whole numbers, got an array'),
    ({"least": 1}, '"least" must be a whole number of at least 2, got 1'),
    ({"most": "x"}, '"most" must be a whole number from 0 to 5, got a string'),
    ({"pair": ["a"]}, '"pair" must be an array of strings with at least 2 members, got ["a"]'),
    ({"short": ""}, '"short" must be a string with 1 to 3 characters, got ""'),
    ({"short": "abcd"}, '"short" must be a string with 1 to 3 characters, got "abcd"'),
    ({"short": 7}, '"short" must be a string with 1 to 3 characters, got a number'),
    ({"ratio": "x"}, '"ratio" must be a number, got a string'),
    ({"either": [{"size": 12}]}, '"either[0].size" must be a whole number from 1 to 9, got 12'),
]


@pytest.mark.parametrize(("keys", "message"), WIDE, ids=str)
def test_types_that_no_plugin_has_yet(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(CniError) as caught:
        read(Wide, {"name": "net1", **keys})
    texts = f"{caught.value.msg}; {caught.value.details}"
    assert message in texts
    assert not NOT_JSON.search(texts)
