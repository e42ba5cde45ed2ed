"""Whatever prevResult says: what is right comes back as it was, what is wrong is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from cni.convert import parse_result, show_result
from cni.versions import SUPPORTED
from plugin_table import CHAINED
from tests.fuzz import inputs
from tests.fuzz.cases import cases, judge
from tests.fuzz.place import call, environment, footprint, restored
from tests.fuzz.test_fuzz_environment import CONFIGURATIONS
from tests.support.subjects import PLUGINS, names

if TYPE_CHECKING:
    from cni.testing import Host
    from tests.fuzz.conftest import Fuzz

RESULTS = inputs.VERSIONS.flatmap(lambda version: inputs.broken(inputs.results(version)))
CHAINABLE = names(CHAINED)
NAMES = st.sampled_from([*CHAINABLE, *PLUGINS])


def _chain(name: str, result: dict[str, Any], version: str) -> bool:
    """ADD where a plugin may be chained, CHECK and DEL everywhere."""
    own = result.get("cniVersion")
    version = own if own in SUPPORTED and version == "same" else "1.1.0" if version == "same" else version
    conf = CONFIGURATIONS[name] | {"cniVersion": version, "prevResult": result}
    with restored() as before:
        is_accepted = False
        if name in CHAINABLE:
            added = judge(call(name, environment("ADD"), conf), "ADD")
            is_accepted = added.ok
            if not added.ok:
                assert footprint() == before, added
            elif version == own:
                # Older shapes have no place for some of it.
                passed = show_result(parse_result(result, version), version)
                assert parse_result(added.json, "") == parse_result(passed, version)
        judge(call(name, environment("CHECK"), conf), "CHECK")
        removed = judge(call(name, environment("DEL"), conf), "DEL")
        assert removed.ok or not is_accepted, removed
        assert footprint().own == before.own
    return is_accepted


def test_results_are_passed_on_or_refused(fuzz: Fuzz, host: Host) -> None:
    versions = st.just("same") | inputs.VERSIONS
    fuzz.run_inside(host, cases(1, name=NAMES, result=RESULTS, version=versions)(_chain))
