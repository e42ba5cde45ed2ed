"""DEL after the network's list was edited: what ADD made goes, whatever values DEL does not need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.conf import parse
from cni.convert import dumps
from cni.errors import CniError, Code
from tests.support import scene, subjects

if TYPE_CHECKING:
    from cni.testing import Host

MODELS = {name: scene.load(name).conf for name in subjects.PLUGINS}
TOLERANT = [name for name, model in MODELS.items() if model.delete_reads is not None]


def is_enough(name: str, conf: dict[str, Any]) -> bool:
    """Return whether the plugin's DEL takes the configuration."""
    try:
        parse(dumps(conf)).read_for_delete(MODELS[name])
    except CniError:
        return False
    return True


@pytest.mark.parametrize("name", TOLERANT)
def test_del_refuses_or_removes_all(host: Host, name: str) -> None:
    sandbox = host.sandbox("c1")
    good = subjects.configuration(name, **subjects.full_keys(name))
    # A first round makes what networks share, and what stays.
    host.plugin(name, "ADD", good, netns=sandbox).must()
    host.plugin(name, "DEL", good, netns=sandbox).must()
    before = host.snapshot()
    ignored = 0
    for wrong in subjects.wrong(name):
        host.plugin(name, "ADD", good, netns=sandbox).must()
        edited = good | wrong
        answer = host.plugin(name, "DEL", edited, netns=sandbox)
        if is_enough(name, edited):
            ignored += 1
            assert answer.must() == {}
            assert "DEL ignores values that ADD refuses" in answer.stderr
        else:
            assert answer.code in {Code.DECODING_FAILURE, Code.INVALID_CONFIG}
            host.plugin(name, "DEL", good, netns=sandbox).must()
        assert before.differences(host.snapshot()) == [], wrong
    assert ignored
