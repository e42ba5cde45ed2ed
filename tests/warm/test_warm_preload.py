"""A worker imports nothing: the server has imported everything before it forks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from plugin_table import INTERFACE
from tests.support.subjects import BACKENDS, NONE_VALID, PLUGINS, chain, prepare, subjects_here

if TYPE_CHECKING:
    from tests.warm.conftest import WarmHost

VERBS = ("STATUS", "ADD", "CHECK", "DEL", "GC")


def test_no_verb_of_any_plugin_imports_a_module(warm_host: WarmHost) -> None:
    known = set(warm_host.facts()["modules"].split())
    assert {f"{plugin.package}.add" for plugin in PLUGINS.values()} | {"subprocess"} <= known
    prepare(warm_host, *PLUGINS)
    for subject in subjects_here():
        sandbox = warm_host.sandbox(subject)
        for backend in BACKENDS:
            previous: dict[str, Any] = {}
            for verb in VERBS:
                for conf in chain(subject, backend):
                    asked = conf | previous | (NONE_VALID if verb == "GC" else {})
                    answer = warm_host.plugin(conf["type"], verb, asked, netns=sandbox).must()
                    if verb == "ADD" and PLUGINS[conf["type"]].kind == INTERFACE:
                        previous = {"prevResult": answer}
    for _ in range(8):
        assert set(warm_host.facts()["modules"].split()) - known == set()
    assert warm_host.status()["workers_made"] <= 8 * len(subjects_here())
