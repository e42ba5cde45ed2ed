"""Results of each version: read, shown, and what is lost on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cni.convert import dumps, parse_result, show_result
from cni.errors import CniError
from cni.result import Dns, Ip, Result, Route

ROWS = json.loads((Path(__file__).parents[1] / "data" / "conversions.json").read_text())
BY_VERSION = {row["version"]: row["document"] for row in ROWS}


@pytest.mark.parametrize("version", BY_VERSION)
def test_a_document_of_each_version_comes_back_as_it_was(version: str) -> None:
    document = BY_VERSION[version]
    assert show_result(parse_result(document, "9.9.9"), version) == document


@pytest.mark.parametrize("newer", ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
@pytest.mark.parametrize("older", ["0.1.0", "0.2.0"])
def test_older_versions_keep_the_first_address_of_each_family(newer: str, older: str) -> None:
    document = BY_VERSION[newer] if newer in BY_VERSION else BY_VERSION["0.3.0"] | {"cniVersion": newer}
    shown = show_result(parse_result(document, ""), older)
    assert shown["ip4"]["ip"] == "10.1.0.2/16"
    assert shown["ip4"]["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}]
    assert shown["ip6"] == {"ip": "fd00::2/64", "gateway": "fd00::1", "routes": [{"dst": "::/0"}]}
    assert "interfaces" not in shown


def test_middle_versions_always_have_dns_and_the_family_of_an_address() -> None:
    shown = show_result(Result(ips=(parse_result(BY_VERSION["1.1.0"], "").ips[1],)), "0.4.0")
    assert shown == {
        "cniVersion": "0.4.0",
        "ips": [{"version": "6", "interface": 1, "address": "fd00::2/64", "gateway": "fd00::1"}],
        "dns": {},
    }


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0", "1.0.0"])
def test_versions_before_1_1_0_have_no_place_for_what_came_with_it(version: str) -> None:
    details = BY_VERSION["1.1.0"] | {"cniVersion": version}
    shown = show_result(parse_result(details, ""), version)
    assert [set(each) for each in shown["interfaces"]] == [{"name", "mac"}, {"name", "mac", "sandbox"}]
    assert [set(each) for each in shown["routes"]] == [{"dst", "gw"}, {"dst"}]


@pytest.mark.parametrize("version", ["0.3.0", "0.4.0", "1.0.0", "1.1.0"])
def test_an_answer_of_ipam_says_how_to_make_routes_in_every_version(version: str) -> None:
    routes = BY_VERSION["1.1.0"]["routes"]
    assert show_result(parse_result({"routes": routes}, version), version)["routes"] == routes


def test_a_result_without_address_cannot_be_shown_in_the_oldest_version() -> None:
    with pytest.raises(CniError, match="cannot convert: no valid IP addresses"):
        show_result(Result(), "")


def test_the_default_version_counts_where_the_document_has_none() -> None:
    document = {"ip4": {"ip": "10.0.0.2/24"}}
    assert len(parse_result(document, "0.2.0").ips) == 1
    assert parse_result(document, "1.0.0").ips == ()


def test_keys_match_in_any_case_and_null_is_nothing() -> None:
    document: dict[str, Any] = {
        "CNIVERSION": "1.0.0",
        "IPS": [{"Address": "10.0.0.2/24", "GATEWAY": ""}],
        "dns": None,
    }
    (ip,) = parse_result(document, "").ips
    assert (str(ip.address), ip.gateway, ip.interface) == ("10.0.0.2/24", None, None)


def test_an_ipv4_address_written_as_ipv6_counts_as_ipv4() -> None:
    document = {"ips": [{"address": "10.0.0.2/24", "gateway": "::ffff:10.0.0.1"}]}
    assert show_result(parse_result(document, "1.0.0"), "1.0.0")["ips"][0]["gateway"] == "10.0.0.1"


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "10.0.0.1/255.0.0.0", "10.0.0.1/33", "::1%lo/64", "::ffff:10.0.0.0/120", ""]
)
def test_only_an_address_with_a_prefix_length_is_one(address: str) -> None:
    with pytest.raises(CniError, match="invalid CIDR address"):
        parse_result({"ips": [{"address": address}]}, "1.0.0")


def test_text_is_indented_by_four_and_sorted_from_1_0_0_on() -> None:
    result = parse_result(BY_VERSION["1.0.0"], "")
    assert dumps(show_result(result, "1.0.0")).startswith(b'{\n    "cniVersion": "1.0.0",\n    "dns": {')
    assert dumps(show_result(result, "0.4.0")).startswith(
        b'{\n    "cniVersion": "0.4.0",\n    "interfaces": ['
    )


def test_nothing_empty_is_shown() -> None:
    assert show_result(Result(), "1.1.0") == {"cniVersion": "1.1.0"}
    assert show_result(Result(dns=Dns(search=("a",))), "1.1.0")["dns"] == {"search": ["a"]}
    ip = Ip(parse_result(BY_VERSION["1.1.0"], "").ips[0].address, interface=0)
    assert show_result(Result(ips=(ip,)), "1.1.0")["ips"] == [{"interface": 0, "address": "10.1.0.2/16"}]
    route = Route(parse_result(BY_VERSION["1.1.0"], "").routes[0].dst, table=0)
    assert show_result(Result(routes=(route,)), "1.1.0")["routes"] == [{"dst": "0.0.0.0/0", "table": 0}]
