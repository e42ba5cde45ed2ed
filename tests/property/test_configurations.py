"""Whatever stands in a configuration, a plugin reads it or names what is wrong with it."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.conf import Model, decode_object, read
from cni.errors import CniError, Code
from plugin_table import declared, packages
from tests.support.examples import examples

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.conf import NetConf
    from cni.plugin import Plugin

PLUGINS: list[Plugin[NetConf]] = [import_module(package).PLUGIN for package in packages(declared()).values()]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-5, 70_000)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(
        ["", "10.1.0.0/16", "10.1.0.7", "fd00::/64", "tcp", "02:00:00:00:00:01", "iptables", "x\0y"]
    )
    | st.text(max_size=8)
)
ANY_JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


OF_EVERY_PLUGIN = "cniVersion|name|type|ipam|dns"


# A strategy costs more than what it draws once.
@cache
def documents(model: type[Model], depth: int = 3) -> st.SearchStrategy[dict[str, Any]]:
    """Return objects with some of the model's keys, in odd case, with the right or a wrong value."""
    members = {}
    for name, field in model.model_fields.items():
        nested = _nested_model(field.annotation)
        inner = ANY_JSON if nested is None or depth == 0 else ANY_JSON | documents(nested, depth - 1)
        members[field.alias or name] = inner | st.lists(inner, max_size=2)
    spellings: list[Callable[[str], str]] = [str.lower, str.upper, str]
    return st.builds(
        lambda document, spell: {spell(name): value for name, value in document.items()},
        st.fixed_dictionaries({}, optional=members),
        st.sampled_from(spellings),
    )


def _nested_model(annotation: Any) -> type[Model] | None:
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    models = (each for each in candidates if isinstance(each, type) and issubclass(each, Model))
    return next(models, None)


def refusal(function: Callable[..., object], *args: object) -> CniError | None:
    """Call the function and give the CniError that it raises, None for a success; all else fails the test."""
    try:
        function(*args)
    except CniError as error:
        return error
    return None


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.name)
@examples
@given(data=st.data())
def test_a_configuration_is_read_or_refused(plugin: Plugin[NetConf], data: st.DataObject) -> None:
    """Code 7, or 6 if a key of the specification has another JSON type."""
    error = refusal(read, plugin.conf, {"name": "net1"} | data.draw(documents(plugin.conf)))
    if error is None:
        return
    is_common = re.match(rf'"({OF_EVERY_PLUGIN})(\.[^"]+|\[[^"]+)?" must be', error.msg) is not None
    assert error.msg
    assert error.code == Code.INVALID_CONFIG or (is_common and error.code == Code.DECODING_FAILURE)


@examples
@given(st.binary(max_size=60) | ANY_JSON.map(lambda value: json.dumps(value).encode()))
def test_stdin_is_an_object_or_refused_with_code_6(text: bytes) -> None:
    error = refusal(decode_object, text, "network config")
    assert error is None or (error.code == Code.DECODING_FAILURE and error.msg)
