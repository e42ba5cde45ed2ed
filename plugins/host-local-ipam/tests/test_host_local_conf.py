"""Configurations that host-local refuses, with their messages, and how it reads the others."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from cni.conf import read
from cni.errors import CniError, Code
from cni.testing.direct import call
from cni_host_local_ipam import PLUGIN
from cni_host_local_ipam.conf import HostLocalConf
from cni_host_local_ipam.ranges import show_range_set

REFUSED = json.loads((Path(__file__).parent / "data/refused_confs.json").read_text(encoding="utf-8"))
BASE = {"cniVersion": "1.1.0", "name": "net", "type": "host-local"}


def accepted(ipam: dict[str, Any], **others: Any) -> HostLocalConf:
    return read(HostLocalConf, BASE | {"ipam": ipam} | others)


def shown(conf: HostLocalConf) -> list[str]:
    return [show_range_set(each) for each in conf.range_sets]


@pytest.mark.parametrize("case", [pytest.param(each, id=each["what"]) for each in REFUSED])
def test_a_malformed_value_is_refused_in_words(case: dict[str, Any], tmp_path: Path) -> None:
    conf = BASE | case["conf"]
    if isinstance(conf.get("ipam"), dict):
        conf["ipam"].setdefault("dataDir", str(tmp_path / "networks"))
    verbs = ("ADD", "DEL") if conf["cniVersion"] != "1.1.0" else ("ADD", "CHECK", "DEL", "GC", "STATUS")
    for verb in verbs:
        answer = call(PLUGIN, verb, conf)
        assert answer.code == case.get("code", Code.INVALID_CONFIG)
        assert answer.msg.startswith(case["msg"])
        assert case.get("details", "") in answer.json.get("details", "")
    assert not list(tmp_path.iterdir())


def test_defaults_of_a_range() -> None:
    conf = accepted({"ranges": [[{"subnet": "10.1.0.0/16"}], [{"subnet": "fd00::/64"}]]})
    assert shown(conf) == ["10.1.0.1-10.1.255.254", "fd00::1-fd00::ffff:ffff:ffff:ffff"]
    assert [str(each[0].gateway) for each in conf.range_sets] == ["10.1.0.1", "fd00::1"]
    assert str(conf.folder) == "/var/lib/cni/networks/net"


def test_a_range_may_be_all_of_its_subnet_and_its_gateway_outside() -> None:
    given = {
        "subnet": "10.1.0.0/24",
        "rangeStart": "10.1.0.0",
        "rangeEnd": "10.1.0.255",
        "gateway": "10.9.0.1",
    }
    conf = accepted({"ranges": [[given]]})
    assert shown(conf) == ["10.1.0.0-10.1.0.255"]
    assert str(conf.range_sets[0][0].gateway) == "10.9.0.1"


def test_range_sets_come_in_order_runtime_then_flat_then_ranges() -> None:
    conf = accepted(
        {"subnet": "10.2.0.0/24", "rangeEnd": "10.2.0.9", "ranges": [[{"subnet": "10.3.0.0/24"}]]},
        runtimeConfig={"ipRanges": [[{"subnet": "10.1.0.0/24"}]]},
    )
    assert shown(conf) == ["10.1.0.1-10.1.0.254", "10.2.0.1-10.2.0.9", "10.3.0.1-10.3.0.254"]


def test_keys_match_in_any_case_and_empty_members_count_as_absent() -> None:
    member = {"Subnet": "10.1.0.0/24", "RangeStart": "", "RangeEnd": "10.1.0.9", "Gateway": ""}
    conf = accepted({"SUBNET": "10.2.0.0/24", "GateWay": ""}, RuntimeConfig={"IPRanges": [[member]]})
    assert shown(conf) == ["10.1.0.1-10.1.0.9", "10.2.0.1-10.2.0.254"]


def test_a_flat_list_of_the_runtime_makes_a_set_per_family() -> None:
    flat = [
        {"Subnet": "10.1.0.0/24"},
        {"Subnet": "fd00::/64", "RangeEnd": "fd00::9"},
        {"Subnet": "10.2.0.0/24"},
    ]
    conf = accepted({}, runtimeConfig={"ipRanges": flat})
    assert shown(conf) == ["10.1.0.1-10.1.0.254,10.2.0.1-10.2.0.254", "fd00::1-fd00::9"]


def test_null_and_empty_lists_count_as_absent() -> None:
    runtime = {"ipRanges": None, "ips": None}
    conf = accepted(
        {"subnet": "10.1.0.0/24", "ranges": None, "routes": None}, runtimeConfig=runtime, args=None
    )
    assert shown(conf) == ["10.1.0.1-10.1.0.254"]
    assert conf.requested == ()
    conf = accepted({"subnet": "10.1.0.0/24", "ranges": []}, runtimeConfig={"ipRanges": [], "ips": []})
    assert len(conf.range_sets) == 1


def test_requests_keep_their_order_and_lose_their_prefix() -> None:
    conf = accepted(
        {"subnet": "10.1.0.0/24"},
        args={"cni": {"ips": ["10.1.0.7/8"], "labels": {"a": "b"}}},
        runtimeConfig={"IPs": ["::ffff:10.1.0.5", "fd00::A"]},
    )
    assert conf.requested == tuple(map(ip_address, ("10.1.0.7", "10.1.0.5", "fd00::a")))


def test_every_member_of_a_route_is_kept() -> None:
    route = {
        "dst": "10.9.8.7/16",
        "GW": "",
        "mtu": 1400,
        "advmss": 1360,
        "priority": 5,
        "table": 0,
        "scope": 0,
    }
    made = accepted({"subnet": "10.1.0.0/24", "routes": [route]}).ipam.routes[0].to_route()
    assert (made.dst, made.gw, made.mtu, made.advmss) == (ip_network("10.9.0.0/16"), None, 1400, 1360)
    assert (made.priority, made.table, made.scope) == (5, 0, 0)


def test_one_of_each_family_is_allowed_in_the_oldest_version() -> None:
    conf = accepted({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]]}, cniVersion="0.1.0")
    assert len(conf.range_sets) == 2


def test_an_error_of_a_validator_names_its_field() -> None:
    with pytest.raises(CniError) as caught:
        accepted({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "x"}]]})
    assert caught.value.details == 'Correct "ipam.ranges[1][0].subnet", which is "x".'
