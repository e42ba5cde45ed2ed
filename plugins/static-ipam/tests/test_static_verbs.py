"""The verbs of static in the test's own process: results, refusals, and that no state exists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cni.errors import Code
from cni.testing.direct import call
from cni.versions import SUPPORTED, at_least
from cni_static_ipam import PLUGIN

CASES: dict[str, list[dict[str, Any]]] = json.loads((Path(__file__).parent / "data/cases.json").read_text())
ONE = {"addresses": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1"}]}
VALID: dict[str, Any] = {"cni.dev/valid-attachments": []}
# ADD refuses each of these.
MALFORMED: dict[str, dict[str, Any]] = {
    "no ipam": {},
    "ipam null": {"ipam": None},
    "address malformed": {"ipam": {"addresses": [{"address": "bad"}]}},
    "addresses a string": {"ipam": {"addresses": "10.1.0.2/24"}},
    "addresses null in it": {"ipam": {"addresses": [None]}},
    "address a number": {"ipam": {"addresses": [{"address": 5}]}},
    "gateway a number": {"ipam": {"addresses": [{"address": "10.1.0.2/24", "gateway": 5}]}},
    "routes an object": {"ipam": {"routes": {}}},
    "route without dst": {"ipam": {"routes": [{}]}},
    "dns malformed": {"ipam": {"dns": {"nameservers": "192.0.2.53"}}},
    "runtimeConfig a list": {"ipam": {}, "runtimeConfig": []},
    "ips a string": {"ipam": {}, "runtimeConfig": {"ips": "10.1.0.2/24"}},
    "ips a number": {"ipam": {}, "runtimeConfig": {"ips": [6]}},
    "args malformed": {"ipam": {}, "args": {"cni": {"ips": {"a": 1}}}},
}


def conf(
    ipam: dict[str, Any] | None = None, keys: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    given = {} if ipam is None else {"ipam": ipam}
    return {"cniVersion": "1.1.0", "name": "net", "type": "bridge"} | given | (keys or {}) | more


def named(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", CASES[kind], ids=lambda case: case["what"])


@named("results")
def test_results(case: dict[str, Any]) -> None:
    answer = call(PLUGIN, "ADD", conf(case["ipam"], case.get("keys")), args=case.get("args", ""))
    ips = {"ips": case["ips"]} if case["ips"] else {}
    assert answer.must() == {"cniVersion": "1.1.0"} | ips | case.get("others", {})


@named("refusals")
def test_refusals(case: dict[str, Any]) -> None:
    answer = call(PLUGIN, "ADD", conf(case.get("ipam"), case.get("keys")), args=case.get("args", ""))
    assert (answer.code, answer.msg[: len(case["msg"])]) == (case["code"], case["msg"])
    assert case.get("details", "") in answer.json.get("details", "")


@named("checks")
def test_check(case: dict[str, Any]) -> None:
    keys = case.get("keys", {}) | ({"prevResult": {"ips": case["ips"]}} if "ips" in case else {})
    answer = call(PLUGIN, "CHECK", conf(case.get("ipam"), keys), args=case.get("args", ""))
    expected = case.get("code", Code.MISMATCH) if "msg" in case else 0
    assert (answer.code, answer.msg) == (expected, case.get("msg", ""))
    assert case.get("details", "") in answer.json.get("details", "")


@pytest.mark.parametrize("keys", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_configuration_is_refused_with_the_field_but_never_by_del(keys: dict[str, Any]) -> None:
    for verb in ("ADD", "CHECK", "STATUS"):
        answer = call(PLUGIN, verb, conf(keys=keys))
        assert answer.code == Code.INVALID_CONFIG, answer
        told = answer.msg + answer.json.get("details", "")
        assert "missing 'ipam' key" in told or 'field "' in told, answer
    for verb in ("DEL", "DEL", "GC"):
        assert call(PLUGIN, verb, conf(keys=keys | VALID)).must() == {}
    assert call(PLUGIN, "DEL", conf(keys=keys), args="IP=bad;UNKNOWN=1").must() == {}


@pytest.mark.parametrize("version", SUPPORTED)
def test_the_result_has_the_shape_of_the_version(version: str) -> None:
    addresses = [*ONE["addresses"], {"address": "fd00::2/64"}]
    routes = [{"dst": "0.0.0.0/0", "gw": "10.1.0.7"}, {"dst": "::/0"}]
    dns = {"nameservers": ["192.0.2.53"]}
    ipam = {"addresses": addresses, "routes": routes, "dns": dns}
    result = call(PLUGIN, "ADD", conf(ipam, cniVersion=version)).must()
    if version < "0.3.0":
        assert result == {
            "cniVersion": version,
            "ip4": {"ip": "10.1.0.2/24", "gateway": "10.1.0.1", "routes": routes[:1]},
            "ip6": {"ip": "fd00::2/64", "routes": routes[1:]},
            "dns": dns,
        }
        return
    families = [{"version": "4"}, {"version": "6"}] if version < "1.0.0" else [{}, {}]
    ips = [address | family for address, family in zip(addresses, families, strict=True)]
    assert result == {"cniVersion": version, "ips": ips, "routes": routes, "dns": dns}


@pytest.mark.parametrize("version", ["", *SUPPORTED])
def test_several_addresses_of_a_family_need_0_3_0(version: str) -> None:
    answer = call(PLUGIN, "ADD", conf(ONE, cniVersion=version), args="IP=10.1.0.3/24")
    assert answer.ok is at_least(version or "0.1.0", "0.3.0"), answer
    replaced = conf(ONE | {"addresses": ONE["addresses"] * 2}, cniVersion=version)
    assert call(PLUGIN, "ADD", replaced | {"runtimeConfig": {"ips": ["10.1.0.9/24"]}}).ok


def test_routes_keep_what_only_newer_go_plugins_pass_on() -> None:
    route = {"dst": "10.9.0.0/16", "mtu": 1400, "advmss": 1300, "priority": 5, "table": 100, "scope": 253}
    assert call(PLUGIN, "ADD", conf(ONE | {"routes": [route]})).must()["routes"] == [route]


def test_one_configuration_gives_each_container_the_addresses_of_its_own_args() -> None:
    """Configurations of earlier calls are kept in a process that serves several calls."""
    for number in (5, 6, 5):
        answer = call(PLUGIN, "ADD", conf(ONE), args=f"IP=10.1.0.{number}/24", container_id=f"c{number}")
        assert answer.addresses == ["10.1.0.2", f"10.1.0.{number}"]
    assert call(PLUGIN, "ADD", conf(ONE)).addresses == ["10.1.0.2"]


def test_nothing_is_ever_stale_and_status_needs_no_addresses() -> None:
    assert call(PLUGIN, "PYCNI_GC_PLAN", conf(ONE, VALID)).must() == {"stale": []}
    assert call(PLUGIN, "GC", conf(ONE, VALID)).must() == {}
    assert call(PLUGIN, "STATUS", conf({})).must() == {}


@pytest.mark.parametrize(("verb", "version"), [("STATUS", "1.0.0"), ("GC", "1.0.0"), ("CHECK", "0.3.1")])
def test_verbs_are_refused_to_older_versions(verb: str, version: str) -> None:
    answer = call(PLUGIN, verb, conf(ONE, cniVersion=version))
    assert (answer.code, answer.msg) == (1, f"config version does not allow {verb}")
