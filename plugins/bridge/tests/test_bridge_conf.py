"""The configuration keys of the bridge plugin: what is accepted, and what is said of the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cni.conf import read
from cni.errors import CniError, Code
from cni.interface.conf import parse_mac
from cni_bridge.conf import BridgeConf

DATA = Path(__file__).parent / "data"
BASE = {"cniVersion": "1.1.0", "name": "net1", "type": "bridge"}


def table(name: str) -> list[Any]:
    return [pytest.param(case, id=case["what"]) for case in json.loads((DATA / name).read_text())]


def conf(**keys: Any) -> BridgeConf:
    return read(BridgeConf, BASE | keys)


@pytest.mark.parametrize("case", table("bridge_conf.json"))
def test_a_configuration_is_accepted_or_named_as_wrong(case: dict[str, Any]) -> None:
    if not case["error"]:
        conf(**case["conf"])
        return
    with pytest.raises(CniError) as caught:
        conf(**case["conf"])
    assert caught.value.code == Code.INVALID_CONFIG
    assert caught.value.msg == case["error"]


@pytest.mark.parametrize("case", table("bridge_macs.json"))
def test_a_mac_address_is_read_as_go_reads_it(case: dict[str, Any]) -> None:
    if not case["error"]:
        assert parse_mac(case["text"]) == case["mac"]
        return
    with pytest.raises(CniError) as caught:
        parse_mac(case["text"])
    assert caught.value.msg == case["error"]


def test_the_runtimes_mac_comes_first_then_args_then_cni_args() -> None:
    from_args = {"args": {"cni": {"mac": "02:00:00:00:00:02"}}}
    from_runtime = {"runtimeConfig": {"mac": "02:00:00:00:00:03"}}
    cni_args = {"MAC": "02:00:00:00:00:01"}
    assert conf().mac_from({}) == ""
    assert conf().mac_from(cni_args) == "02:00:00:00:00:01"
    assert conf(**from_args).mac_from(cni_args) == "02:00:00:00:00:02"
    assert conf(**from_args, **from_runtime).mac_from(cni_args) == "02:00:00:00:00:03"


def test_a_mac_in_args_that_is_no_text_is_refused() -> None:
    with pytest.raises(CniError, match=r'"args\.cni\.mac" must be a string, got a number'):
        conf(args={"cni": {"mac": 5}}).mac_from({})


def test_the_trunk_is_a_sorted_set() -> None:
    entries = [{"id": 42}, {"minID": 10, "maxID": 12}, {"id": 11, "minID": 1, "maxID": 2}]
    assert conf(vlanTrunk=entries).trunk == (1, 2, 10, 11, 12, 42)


def test_the_presence_of_a_trunk_key_asks_for_vlan_filtering() -> None:
    assert not conf().needs_vlan_filtering
    assert conf(vlanTrunk=[]).needs_vlan_filtering
    assert conf(vlan=5).needs_vlan_filtering


def test_gateway_and_masquerade_need_addresses() -> None:
    assert not conf(isGateway=True).has_gateway
    assert not conf(ipMasq=True).has_masquerade
    ipam = {"type": "host-local"}
    assert conf(isDefaultGateway=True, ipam=ipam).has_gateway
    assert conf(ipMasq=True, ipam=ipam).has_masquerade
