"""A key of the specification with another JSON type is a decoding failure; a plugin's own key is not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cni.errors import Code
from cni.testing import direct
from cni_bridge.plugin import PLUGIN as BRIDGE
from cni_host_local_ipam import PLUGIN as HOST_LOCAL
from cni_loopback import PLUGIN as LOOPBACK
from cni_portmap import PLUGIN as PORTMAP

if TYPE_CHECKING:
    from cni.plugin import Plugin

PLUGINS: dict[str, Plugin[Any]] = {
    "bridge": BRIDGE,
    "host-local": HOST_LOCAL,
    "loopback": LOOPBACK,
    "portmap": PORTMAP,
}
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
OWN: list[tuple[str, dict[str, Any]]] = [
    ("bridge", {"mtu": "1500"}),
    ("bridge", {"isGateway": "true"}),
    ("bridge", {"bridge": 7}),
    ("bridge", {"args": "x"}),
    ("portmap", {"runtimeConfig": []}),
    ("portmap", {"snat": "no"}),
    ("host-local", {"ipam": {"type": "host-local", "ranges": "x"}}),
]
IPAM = {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}]]}
CONF: dict[str, Any] = {"cniVersion": "1.1.0", "name": "net1", "type": "x", "ipam": IPAM}


def wrong(key: str) -> list[Any]:
    return [value for kind, values in OF_TYPE.items() if kind != SPEC[key] for value in values]


@pytest.mark.parametrize("plugin", PLUGINS)
@pytest.mark.parametrize("verb", ["ADD", "CHECK", "DEL"])
@pytest.mark.parametrize(
    "conf", [*({key: each} for key in SPEC for each in wrong(key)), *NESTED], ids=json.dumps
)
def test_a_key_of_the_specification(plugin: str, verb: str, conf: dict[str, Any]) -> None:
    answer = direct.call(PLUGINS[plugin], verb, CONF | conf)
    assert (answer.code, next(iter(conf)) in answer.msg) == (Code.DECODING_FAILURE, True)


@pytest.mark.parametrize("key", ["cni.dev/valid-attachments", "cni.dev/attachments"])
@pytest.mark.parametrize("value", ["", "x", 0, 7, False, True, {}, {"a": 1}], ids=json.dumps)
def test_attachments_that_are_no_array(key: str, value: object) -> None:
    """An empty value of another type is not the empty array, with which GC removes every attachment."""
    answer = direct.call(HOST_LOCAL, "GC", CONF | {key: value})
    assert (answer.code, key in answer.msg) == (Code.DECODING_FAILURE, True)


@pytest.mark.parametrize(("plugin", "conf"), OWN, ids=json.dumps)
def test_a_key_of_a_plugin(plugin: str, conf: dict[str, Any]) -> None:
    assert direct.call(PLUGINS[plugin], "ADD", CONF | conf).code == Code.INVALID_CONFIG


@pytest.mark.parametrize(("name", "code"), [("", 7), ("a/b", 7), ("-a", 7), (None, 7)])
def test_a_name_that_is_a_string_or_missing(name: str | None, code: int) -> None:
    assert direct.call(LOOPBACK, "ADD", CONF | {"name": name}).code == code
