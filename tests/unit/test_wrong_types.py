"""A key of the specification with another JSON type is a decoding failure; a plugin's own key is not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cni.errors import Code
from cni.testing import direct
from tests.support import scene
from tests.support.subjects import PLUGINS, example, ipam, wrong

if TYPE_CHECKING:
    from collections.abc import Iterator

VERBS = {"ADD": "add", "CHECK": "check", "DEL": "delete"}
OF_TYPE: dict[str, list[Any]] = {
    "string": ["x"],
    "number": [7, 7.5],
    "boolean": [True],
    "array": [[], ["x"]],
    "object": [{}, {"a": 1}],
}
# What the Go library decodes before a plugin runs, and the type of each.
SPEC = {
    "cniVersion": "string",
    "name": "string",
    "type": "string",
    "ipam": "object",
    "dns": "object",
    "prevResult": "object",
}
NESTED: list[dict[str, Any]] = [
    {"ipam": {"type": 7}},
    {"ipam": {"type": []}},
    {"dns": {"nameservers": "x"}},
    {"dns": {"nameservers": [7]}},
    {"dns": {"domain": []}},
    {"dns": {"search": {}}},
    {"dns": {"options": True}},
]
OWN = [(name, conf) for name in PLUGINS for conf in wrong(name)]
CONF: dict[str, Any] = {"cniVersion": "1.1.0", "name": "net1", "type": "x", "ipam": ipam(scene.IPAM)}


def of_other_types(key: str) -> Iterator[Any]:
    for kind, values in OF_TYPE.items():
        if kind != SPEC[key]:
            yield from values


OF_THE_SPECIFICATION = [*({key: each} for key in SPEC for each in of_other_types(key)), *NESTED]


# A test for each of these calls would take ten times as long as the call.
@pytest.mark.parametrize("plugin", PLUGINS)
def test_keys_of_the_specification(plugin: str) -> None:
    usual, subject = example(plugin) | CONF, scene.load(plugin)
    for verb, function in VERBS.items():
        for conf in OF_THE_SPECIFICATION:
            answer = direct.call(subject, verb, usual | conf)
            if "prevResult" in conf and not subject.find(function):
                # A plugin without the verb does not read the result.
                assert answer.ok, (verb, conf, answer)
                continue
            assert answer.code == Code.DECODING_FAILURE, (verb, conf, answer)
            assert next(iter(conf)) in answer.msg, (verb, conf, answer)


@pytest.mark.parametrize("key", ["cni.dev/valid-attachments", "cni.dev/attachments"])
@pytest.mark.parametrize("value", ["", "x", 0, 7, False, True, {}, {"a": 1}], ids=json.dumps)
def test_attachments_that_are_no_array(key: str, value: object) -> None:
    """An empty value of another type is not the empty array, with which GC removes every attachment."""
    answer = direct.call(scene.load(scene.IPAM), "GC", CONF | {key: value})
    assert (answer.code, key in answer.msg) == (Code.DECODING_FAILURE, True)


@pytest.mark.parametrize(("plugin", "conf"), OWN, ids=json.dumps)
def test_a_key_of_a_plugin(plugin: str, conf: dict[str, Any]) -> None:
    assert direct.call(scene.load(plugin), "ADD", conf).code == Code.INVALID_CONFIG


@pytest.mark.parametrize(("name", "code"), [("", 7), ("a/b", 7), ("-a", 7), (None, 7)])
def test_a_name_that_is_a_string_or_missing(name: str | None, code: int) -> None:
    assert direct.call(scene.load(scene.LOOPBACK), "ADD", CONF | {"name": name}).code == code
