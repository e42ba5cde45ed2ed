"""The configuration keys of the tap plugin; no kernel."""

from __future__ import annotations

from typing import Any

import pytest

from cni.conf import read
from cni.errors import CniError, Code
from cni_tap.conf import TapConf

BASE = {"cniVersion": "1.1.0", "name": "net1", "type": "tap"}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an MTU that no tap device has": ({"mtu": 65522}, "invalid MTU 65522, must be [0, 65521]"),
    "a user that is a name": ({"owner": "root"}, '"owner" must be a whole number'),
    "the number of no group": ({"group": 4294967295}, '"group" must be a whole number from 0 to 4294967294'),
    "a text for a boolean": ({"multiQueue": "yes"}, '"multiQueue" must be a boolean'),
    "a bridge that is a path": ({"bridge": "a/b"}, '"bridge" is "a/b", which is no name of a link'),
    "itself as IPAM": ({"ipam": {"type": "tap"}}, '"ipam.type" is "tap", which gives no addresses'),
}


@pytest.mark.parametrize(("keys", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_value_is_error_7_and_named(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(CniError) as caught:
        read(TapConf, BASE | keys)
    assert caught.value.code == Code.INVALID_CONFIG
    assert message in caught.value.msg


def test_no_owner_is_not_the_owner_0() -> None:
    assert read(TapConf, BASE).owner is None
    assert read(TapConf, BASE | {"owner": 0, "group": None}).owner == 0
