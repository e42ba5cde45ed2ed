"""The configuration keys of the vlan plugin; no kernel."""

from __future__ import annotations

from typing import Any

import pytest

from cni.conf import read
from cni.errors import CniError, Code
from cni_vlan.conf import VlanConf

BASE = {"cniVersion": "1.1.0", "name": "net1", "type": "vlan", "master": "eth0"}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no master": (
        {"master": ""},
        '"master" field is required. It specifies the host interface name to create the VLAN for',
    ),
    "an ID too large": ({"vlanId": 5000}, "invalid VLAN ID 5000 (must be between 0 and 4095 inclusive)"),
    "an ID below 0": ({"vlanId": -1}, "invalid VLAN ID -1 (must be between 0 and 4095 inclusive)"),
    "an ID that is a string": ({"vlanId": "7"}, '"vlanId" must be a'),
}


@pytest.mark.parametrize(("keys", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_value_is_error_7_and_named(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(CniError) as caught:
        read(VlanConf, BASE | keys)
    assert caught.value.code == Code.INVALID_CONFIG
    assert message in caught.value.msg
