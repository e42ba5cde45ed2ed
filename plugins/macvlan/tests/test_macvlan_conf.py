"""The configuration keys of the macvlan plugin; no kernel."""

from __future__ import annotations

from typing import Any

import pytest

from cni.conf import read
from cni.errors import CniError, Code
from cni_macvlan.conf import MacvlanConf

BASE = {"cniVersion": "1.1.0", "name": "net1", "type": "macvlan"}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown mode": ({"mode": "x"}, 'unknown macvlan mode: "x"'),
    "a mode that is a number": ({"mode": 5}, '"mode" must be a string, got a number'),
    "a negative MTU": ({"mtu": -5}, '"mtu" must be a whole number from 0 to 65535, got -5'),
    "a queue that is a string": ({"bcqueuelen": "9"}, '"bcqueuelen" must be a whole number'),
    "itself as IPAM": ({"ipam": {"type": "macvlan"}}, '"ipam.type" is "macvlan", which gives no addresses'),
}


@pytest.mark.parametrize(("keys", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_value_is_error_7_and_named(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(CniError) as caught:
        read(MacvlanConf, BASE | keys)
    assert caught.value.code == Code.INVALID_CONFIG
    assert message in caught.value.msg


def test_bridge_is_the_mode_of_a_configuration_without_one() -> None:
    assert read(MacvlanConf, BASE).wanted_mode == "bridge"
    assert read(MacvlanConf, BASE | {"mode": "vepa"}).wanted_mode == "vepa"
