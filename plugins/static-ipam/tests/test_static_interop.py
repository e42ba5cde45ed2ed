"""Debian's Go plugin beside ours: equal answers to equal calls, and each with the other's attachments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import GO, OURS
from cni.testing.network import Network

if TYPE_CHECKING:
    from cni.testing import Answer, Host

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not (GO / "static").exists(), reason=f"there are no Go plugins in {GO}"),
]

CASES: dict[str, list[dict[str, Any]]] = json.loads((Path(__file__).parent / "data/cases.json").read_text())
NONE = "/run/netns/none"
V4 = {"address": "10.7.0.5/24", "gateway": "10.7.0.254"}
V6 = {"address": "fd07::5/64", "gateway": "fd07::fe"}
IPAM = {
    "type": "static",
    "addresses": [V4, V6],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": "10.9.0.0/16", "gw": "10.7.0.9"}],
    "dns": {"nameservers": ["192.0.2.53"]},
}


class Both:
    """One call of both plugins."""

    def __init__(self, host: Host, verb: str, case: dict[str, Any]) -> None:
        conf: dict[str, Any] = {"cniVersion": "1.0.0", "name": "net", "type": "bridge"}
        conf |= {"ipam": case["ipam"]} if "ipam" in case else {}
        conf |= case.get("keys", {})
        if verb == "CHECK" and "ips" in case:
            conf["prevResult"] = {"cniVersion": conf["cniVersion"], "ips": case["ips"]}
        self.ours, self.go = (
            host.plugin("static", verb, conf, netns=NONE, args=case.get("args", ""), bindir=bindir)
            for bindir in (OURS, GO)
        )


def without_empty_dns(answer: Answer) -> dict[str, Any]:
    """Return a result. In 1.0.0 this release of the Go plugin still prints an empty `dns`."""
    return {key: value for key, value in answer.must().items() if (key, value) != ("dns", {})}


def test_results_are_equal(host: Host) -> None:
    for case in CASES["results"]:
        both = Both(host, "ADD", case)
        ips = {"ips": case["ips"]} if case["ips"] else {}
        expected = {"cniVersion": "1.0.0"} | ips | case.get("others", {})
        assert without_empty_dns(both.go) == without_empty_dns(both.ours) == expected, case["what"]


def test_refusals_are_equal(host: Host) -> None:
    for case in CASES["refusals"]:
        both = Both(host, "ADD", case)
        for answer, msg in ((both.go, case.get("go", case["msg"])), (both.ours, case["msg"])):
            assert answer.msg.startswith(msg), (case["what"], answer)
            assert not answer.ok


def test_checks_are_equal(host: Host) -> None:
    for case in CASES["checks"]:
        both = Both(host, "CHECK", case)
        assert both.go.msg == both.ours.msg == case.get("msg", ""), case["what"]
        assert both.go.ok == both.ours.ok == ("msg" not in case), case["what"]


def test_this_suite_refuses_more_than_go(host: Host) -> None:
    for case, msg in (
        ({"ipam": {"addresses": [{"address": "::ffff:10.0.0.1/120"}]}}, "the 'address' field is expected"),
        ({"ipam": {"routes": [{}]}}, '"ipam.routes[0].dst" is missing'),
        (
            {
                "ipam": {"addresses": [{"address": "bad"}]},
                "keys": {"runtimeConfig": {"ips": ["10.1.0.8/24"]}},
            },
            "the 'address' field is expected to be in CIDR notation, got: 'bad'",
        ),
    ):
        both = Both(host, "ADD", case)
        assert both.go.ok
        assert (both.ours.code, both.ours.msg[: len(msg)]) == (7, msg)


@pytest.mark.parametrize(
    "keys", [{}, {"ipam": {"addresses": 5}}, {"ipam": {"addresses": [{"address": "bad"}]}}]
)
def test_no_configuration_keeps_del_from_succeeding(host: Host, keys: dict[str, Any]) -> None:
    both = Both(host, "DEL", {"keys": keys, "args": "UNKNOWN=1"})
    assert (both.ours.status, both.ours.stdout) == (both.go.status, both.go.stdout) == (0, "")


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0"])
@pytest.mark.parametrize("go_adds", [True, False], ids=["go-adds", "we-add"])
def test_a_node_moves_to_the_other_suite(host: Host, version: str, *, go_adds: bool) -> None:
    maker, other = (GO, OURS) if go_adds else (OURS, GO)
    net = Network(host, cniVersion=version, isGateway=True, ipam=IPAM)
    one = net.add("c1", bindir=maker)
    assert one.sandbox.addresses("eth0") == ["10.7.0.5/24", "fd07::5/64"]
    net.check(one, bindir=other).must()
    changed = IPAM | {"addresses": [V4, V6 | {"gateway": "fd07::fd"}]}
    answer = net.check(one, bindir=other, keys={"ipam": changed})
    assert answer.msg.startswith("static: Failed to match addr fd07::5 on interface eth0")
    net.delete("c1", bindir=other, keys={"prevResult": one.answer.json})
    assert one.sandbox.links() == ["lo"]
    assert [name for name in host.links() if name.startswith("veth")] == []


@pytest.mark.parametrize("go_is_ipam", [True, False], ids=["our-bridge", "go-bridge"])
def test_an_interface_plugin_of_one_suite_asks_the_ipam_plugin_of_the_other(
    host: Host, *, go_is_ipam: bool
) -> None:
    net = Network(host, cniVersion="1.0.0", isGateway=True, ipam=IPAM)
    bindir, path = (OURS, GO) if go_is_ipam else (GO, host.bindir)
    env = {"CNI_PATH": str(path)}
    one = net.add("c1", bindir=bindir, env=env)
    assert one.sandbox.addresses("eth0") == ["10.7.0.5/24", "fd07::5/64"]
    assert sorted(host.addresses("br0")) == ["10.7.0.254/24", "fd07::fe/64"]
    net.check(one, bindir=bindir, env=env).must()
    net.delete("c1", bindir=bindir, env=env)
    assert one.sandbox.links() == ["lo"]
