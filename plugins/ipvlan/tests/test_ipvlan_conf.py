"""The configuration keys of the ipvlan plugin, and the master that it takes from the chain; no kernel."""

from __future__ import annotations

from typing import Any

import pytest

from cni.conf import read
from cni.errors import CniError, Code
from cni.result import Interface, Result
from cni_ipvlan.conf import IpvlanConf
from cni_ipvlan.plan import choose_master

BASE = {"cniVersion": "1.1.0", "name": "net1", "type": "ipvlan"}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown mode": ({"mode": "x"}, 'unknown ipvlan mode: "x"'),
    "a mode that is a number": ({"mode": 5}, '"mode" must be a string, got a number'),
    "itself as IPAM": ({"ipam": {"type": "ipvlan"}}, '"ipam.type" is "ipvlan", which gives no addresses'),
}


@pytest.mark.parametrize(("keys", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_value_is_error_7_and_named(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(CniError) as caught:
        read(IpvlanConf, BASE | keys)
    assert caught.value.code == Code.INVALID_CONFIG
    assert message in caught.value.msg


def test_the_master_is_the_configured_one_then_the_only_link_of_the_result() -> None:
    one = Result((Interface("net0"),))
    assert choose_master(read(IpvlanConf, BASE), None).master == ""
    assert choose_master(read(IpvlanConf, BASE), one).master == "net0"
    assert choose_master(read(IpvlanConf, BASE | {"master": "eth0"}), one).master == "eth0"


def test_a_result_with_several_links_names_no_master() -> None:
    two = Result((Interface("net0"), Interface("net1")))
    with pytest.raises(CniError, match=r"chained master failure\. PrevResult lacks a single named interface"):
        choose_master(read(IpvlanConf, BASE), two)
