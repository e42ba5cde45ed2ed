"""Files that anybody may have written: whatever is in them, it is read or refused, with the file's name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hypothesis import given
from hypothesis import strategies as st

from cni.errors import CniError
from cni.runtime.cache import Entry, parse_entry, show_entry
from cni.runtime.network import bridges, parse_network, parse_single, subnets
from tests.support.examples import examples

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
Content = TypeVar("Content")
Name = TypeVar("Name")

texts = st.text(max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
plugins = st.dictionaries(
    st.sampled_from(["type", "Type", "name", "capabilities", "ipam", "IPAM", "bridge"]),
    json_values | st.fixed_dictionaries({"ranges": json_values, "subnet": json_values}),
)
networks = st.fixed_dictionaries(
    {
        "name": st.just("net") | json_values,
        "plugins": st.lists(plugins | json_values, max_size=3) | json_values,
    },
    optional={
        "cniVersion": st.sampled_from(["1.0.0", "0.4.0", "9.9.9", "x"]) | json_values,
        "cniVersions": st.lists(st.sampled_from(["1.0.0", "1.1.0", "9"]) | json_values, max_size=3),
        "disableCheck": json_values,
        "loadOnlyInlinedPlugins": json_values,
    },
)
capability_args = st.dictionaries(texts, json_values, max_size=3)


def read_or_refuse(parse: Callable[[Content, Name], T], content: Content, name: Name) -> T | None:
    """Return what a file holds, None when it was refused with its name."""
    try:
        return parse(content, name)
    except CniError as error:
        told = error.msg
    assert str(name) in told
    return None


@examples
@given(st.binary() | networks.map(lambda value: json.dumps(value).encode()))
def test_a_list_is_a_network_or_an_error_that_names_the_file(text: bytes) -> None:
    network = read_or_refuse(parse_network, text, "10-net.conflist")
    if network:
        assert network.name
        assert all(plugin.type for plugin in network.plugins)
        assert subnets(network) is not None
        assert bridges(network) is not None


@examples
@given(st.binary() | plugins.map(lambda value: json.dumps(value).encode()))
def test_a_single_plugin_is_a_network_or_an_error_that_names_the_file(text: bytes) -> None:
    network = read_or_refuse(parse_single, text, "10-net.conf")
    assert network is None or len(network.plugins) == 1


@examples
@given(
    st.builds(
        Entry,
        network=texts.filter(bool),
        container_id=texts.filter(bool),
        ifname=texts.filter(bool),
        config=st.binary(max_size=40),
        netns=texts,
        args=st.lists(st.tuples(texts, texts), max_size=3).map(tuple),
        capability_args=capability_args,
        result=capability_args,
    )
)
def test_an_entry_comes_back_as_it_was_written(entry: Entry) -> None:
    assert parse_entry(json.loads(show_entry(entry)), Path("file")) == entry


@examples
@given(st.dictionaries(st.sampled_from(list(json.loads(show_entry(Entry("n", "c", "i"))))), json_values))
def test_an_odd_entry_is_an_error_that_names_the_file(document: dict[str, Any]) -> None:
    read_or_refuse(parse_entry, document, Path("/cache/file"))
