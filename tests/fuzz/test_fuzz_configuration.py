"""Whatever a configuration says: an answer, nothing left of an ADD that failed, all gone after DEL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.versions import at_least
from plugin_table import CHAINED
from tests.fuzz import configurations, inputs
from tests.fuzz.cases import cases, judge
from tests.fuzz.place import OLD_BRIDGE, call, environment, footprint, restored
from tests.support.subjects import PLUGINS

if TYPE_CHECKING:
    from cni.testing import Host
    from tests.fuzz.conftest import Fuzz

PREVIOUS = {"interfaces": [], "ips": [{"address": "10.1.0.9/16"}, {"address": "fd00:1::9/64"}]}


def _live(name: str, conf: dict[str, Any]) -> bool:
    """ADD, CHECK, GC, STATUS and DEL twice, as a runtime would."""
    if PLUGINS[name].kind == CHAINED:
        conf = {"prevResult": PREVIOUS | {"cniVersion": "1.0.0"}} | conf
    with restored() as before:
        added = judge(call(name, environment("ADD"), conf), "ADD")
        if added.ok:
            _check(name, conf | {"prevResult": added.json})
        else:
            assert footprint() == before, added
        judge(call(name, environment("STATUS"), conf), "STATUS")
        valid = [{"containerID": "c1", "ifname": "eth0"}]
        judge(call(name, environment("GC"), conf | {"cni.dev/valid-attachments": valid}), "GC")
        if added.ok:
            _check(name, conf | {"prevResult": added.json})
        for _ in range(2):
            removed = judge(call(name, environment("DEL"), conf), "DEL")
            assert removed.ok or not added.ok, removed
        assert footprint().own == before.own
    return added.ok


def _check(name: str, conf: dict[str, Any]) -> None:
    checked = judge(call(name, environment("CHECK"), conf), "CHECK")
    told = {key.lower(): value for key, value in conf.items()}
    knows_check = at_least(told.get("cniversion") or "0.1.0", "0.4.0")
    assert checked.ok is knows_check or OLD_BRIDGE in [*told.values()], checked


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_answers_and_leaves_nothing(name: str, fuzz: Fuzz, host: Host) -> None:
    share = configurations.share(name)
    fuzz.run_inside(host, cases(share, conf=inputs.broken(configurations.valid(name)))(_live), name)
