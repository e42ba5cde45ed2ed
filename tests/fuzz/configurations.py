"""Strategies for the configurations of each plugin.

A plugin may have its own in `tests/fuzz_*.py` of its folder, with the names CONFIGURATIONS, SHARE (the part
of an area's cases that are for it), and IPAM and USUAL_IPAM for an IPAM plugin. Any other plugin gets the
configuration of its example.json with keys of its model added.
"""

from __future__ import annotations

from functools import cache
from importlib import util
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

import plugin_table
from cni.conf import Model, NetConf
from tests.fuzz.inputs import ANY_JSON, DNS, FLAGS, TEXTS, Documents, mostly, network
from tests.support import scene, subjects
from tests.support.subjects import PLUGINS

if TYPE_CHECKING:
    from types import ModuleType

_SHARE = 0.2
_NUMBERS = mostly(1400, 0, 1, 5, 68, 65536, -1)


@cache
def _own(name: str) -> ModuleType | None:
    """Return the plugin's own strategies, None if it has none."""
    for path in (PLUGINS[name].folder / "tests").glob("fuzz_*.py"):
        spec = util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    return None


def share(name: str) -> float:
    """Return the part of an area's cases that are for this plugin."""
    return float(getattr(_own(name), "SHARE", _SHARE))


@cache
def valid(name: str) -> Documents:
    """Return configurations of the plugin that are right, or nearly so."""
    own: Documents | None = getattr(_own(name), "CONFIGURATIONS", None)
    return own if own is not None else _from_example(name)


def usual_ipam() -> Documents:
    """Return the one "ipam" object that is right everywhere."""
    usual: Documents = getattr(_own(scene.IPAM), "USUAL_IPAM", st.just(subjects.ipam(scene.IPAM)))
    return usual


def ipam() -> Documents:
    """Return "ipam" objects of all IPAM plugins."""
    return st.one_of(
        [
            getattr(_own(name), "IPAM", st.just(subjects.ipam(name)))
            for name in subjects.names(plugin_table.IPAM)
        ]
    )


def _from_example(name: str) -> Documents:
    plugin = PLUGINS[name]
    members = {key: st.just(value) for key, value in subjects.example(name).items()}
    if plugin.kind == plugin_table.INTERFACE and "ipam" in members:
        members["ipam"] = usual_ipam() | ipam()
    conf: type[NetConf] = scene.load(name).conf
    given = set(NetConf.model_fields) - {"dns", "args", "runtime_config"}
    more = {
        field.alias or key: _value(field.annotation)
        for key, field in conf.model_fields.items()
        if key not in given and (field.alias or key) not in members
    }
    return st.fixed_dictionaries(network(name) | members, optional=more | {"dns": DNS})


def _value(annotation: Any, depth: int = 3) -> st.SearchStrategy[Any]:
    """Return values for a field of a model: mostly of the right JSON type."""
    types = [annotation, *getattr(annotation, "__args__", ())]
    nested = [each for each in types if isinstance(each, type) and issubclass(each, Model)]
    if nested and depth:
        return st.fixed_dictionaries(
            {},
            optional={
                field.alias or key: _value(field.annotation, depth - 1)
                for key, field in nested[0].model_fields.items()
            },
        )
    if bool in types:
        return FLAGS
    if int in types:
        return _NUMBERS
    return TEXTS if str in types else ANY_JSON
