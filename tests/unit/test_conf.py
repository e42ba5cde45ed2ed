"""A configuration that comes again is parsed once, and nothing else is kept."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cni import conf
from cni.conf import NetConf
from cni.errors import CniError


class Wider(NetConf):
    """One plugin's configuration; the other plugin of the same text reads it as a `NetConf`."""

    bridge: str = ""


def text(**more: Any) -> bytes:
    return json.dumps({"cniVersion": "1.0.0", "name": "n", **more}).encode()


def test_the_same_text_gives_the_same_configuration_to_each_plugin() -> None:
    first, second = conf.parse(text(bridge="br0")), conf.parse(text(bridge="br0"))
    assert first.read(Wider) is second.read(Wider)
    assert first.read(NetConf) is second.read(NetConf)
    assert isinstance(first.read(Wider), Wider)
    assert type(first.read(NetConf)) is NetConf
    assert conf.parse(text(bridge="br1")).read(Wider).bridge == "br1"


@pytest.mark.parametrize("more", [{"prevResult": {"cniVersion": "1.0.0"}}, {"bridge": "x" * (1 << 14)}])
def test_documents_with_a_result_and_long_ones_are_not_cached(more: dict[str, Any]) -> None:
    assert conf.parse(text(**more)) is not conf.parse(text(**more))


def test_an_error_is_told_each_time() -> None:
    for _ in range(2):
        with pytest.raises(CniError, match="could not decode network config"):
            conf.parse(b"{")
        with pytest.raises(CniError, match='"name" must be a string, got a number'):
            conf.parse(b'{"name": 5}').read(NetConf)
