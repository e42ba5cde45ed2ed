"""All verbs of the sbr plugin: a container with two interfaces answers by the one that was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import GO

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cni.testing import Answer, Host, Sandbox

RESULT = {
    "cniVersion": "1.0.0",
    "interfaces": [{"name": "net1", "sandbox": "/run/netns/c1"}],
    "ips": [
        {"address": "10.2.0.2/24", "gateway": "10.2.0.1", "interface": 0},
        {"address": "fd02::2/64", "gateway": "fd02::1", "interface": 0},
    ],
}
CONF = {"cniVersion": "1.0.0", "name": "two", "type": "sbr", "prevResult": RESULT}


def configure(place: Host | Sandbox, lines: Iterable[str]) -> None:
    place.run(["ip", "-batch", "-"], "".join(f"{line}\n" for line in lines))


@pytest.fixture
def sandbox(host: Host) -> Sandbox:
    """Return a container with eth0 and net1, each on a wire to the host, and the default routes by net1."""
    sandbox = host.sandbox("c1")
    for number, name in ((1, "eth0"), (2, "net1")):
        configure(host, [
            f"link add wire{number} type veth peer name {name} netns c1",
            f"addr add 10.{number}.0.1/24 dev wire{number}",
            f"addr add fd0{number}::1/64 dev wire{number} nodad",
            f"link set wire{number} up",
        ])  # fmt: skip
        configure(sandbox, [
            f"addr add 10.{number}.0.2/24 dev {name}",
            f"addr add fd0{number}::2/64 dev {name} nodad",
            f"link set {name} up",
        ])  # fmt: skip
    configure(sandbox, ["link set lo up", "route add default via 10.2.0.1", "route add default via fd02::1"])
    return sandbox


def call(host: Host, verb: str, conf: dict[str, Any] | None = None, **options: Any) -> Answer:
    return host.plugin(
        "sbr", verb, CONF | (conf or {}), ifname="net1", **{"netns": "/run/netns/c1", **options}
    )


def text_of(answer: Answer) -> str:
    return f"{answer.msg}; {answer.json.get('details', '')}"


def rules_of(sandbox: Sandbox) -> list[str]:
    """List the rules with a source, as "10.2.0.2 100"."""
    shown = [each for family in ("-4", "-6") for each in sandbox.json(["ip", family, "-j", "rule"])]
    return [f"{each['src']} {each['table']}" for each in shown if each["src"] != "all"]


def routes_of(sandbox: Sandbox, table: str, family: str = "-4") -> list[str]:
    """List the routes of a table without link-local ones, as "default 10.2.0.1".

    The kernel changes table "local" at a later time of its own.
    """
    listed = sandbox.json(["ip", family, "-j", "route", "show", "table", table])
    shown = [each for each in listed if "fe80" not in each["dst"] and each.get("table") != "local"]
    return sorted(f"{each['dst']} {each.get('gateway', each['dev'])}" for each in shown)


def test_each_address_gets_a_table_with_the_routes_of_its_interface(host: Host, sandbox: Sandbox) -> None:
    assert call(host, "ADD").must() == RESULT
    assert rules_of(sandbox) == ["10.2.0.2 100", "fd02::2 101"]
    assert routes_of(sandbox, "100") == ["10.2.0.0/24 net1", "default 10.2.0.1"]
    assert routes_of(sandbox, "101", "-6") == ["default fd02::1", "fd02::/64 net1"]
    assert routes_of(sandbox, "main") == ["10.1.0.0/24 eth0"]
    assert routes_of(sandbox, "main", "-6") == ["fd01::/64 eth0"]


@pytest.mark.parametrize(("first", "second"), [("10.1.0", "10.2.0"), ("fd01:", "fd02:")])
def test_the_container_answers_by_the_interface_that_was_asked(
    host: Host, sandbox: Sandbox, first: str, second: str
) -> None:
    call(host, "ADD").must()
    separator = ":" if ":" in first else "."
    with sandbox.serve(80):
        for network in (first, second):
            host_side = f"{network}{separator}1"
            assert host.dial(f"{network}{separator}2", 80, source=host_side).address == host_side
        # By way of the other interface's network: the response must come back by the second wire.
        other = f"{first}{separator}1"
        assert host.dial(f"{second}{separator}2", 80, source=other).address == other


def test_link_local_routes_stay_in_the_main_table(host: Host, sandbox: Sandbox) -> None:
    configure(sandbox, ["addr add fe80::5/64 dev net1 nodad"])
    call(host, "ADD").must()
    shown = sandbox.json(["ip", "-6", "-j", "route", "show", "table", "main"])
    assert {"fe80::/64"} == {each["dst"] for each in shown if each["dev"] == "net1"}


def test_a_table_that_a_rule_or_a_route_uses_is_left_alone(host: Host, sandbox: Sandbox) -> None:
    configure(sandbox, ["rule add from 10.9.0.1 table 100", "route add 10.8.0.0/16 dev eth0 table 101"])
    call(host, "ADD").must()
    assert rules_of(sandbox) == ["10.2.0.2 102", "10.9.0.1 100", "fd02::2 103"]


def test_configured_gateways_replace_those_of_the_addresses(host: Host, sandbox: Sandbox) -> None:
    call(host, "ADD", {"gateways": ["10.2.0.9"]}).must()
    assert routes_of(sandbox, "100") == ["10.2.0.0/24 net1", "default 10.2.0.9"]
    assert routes_of(sandbox, "101", "-6") == ["default fd02::1", "fd02::/64 net1"]


def test_source_hints_keep_the_subnets_in_the_main_table(host: Host, sandbox: Sandbox) -> None:
    call(host, "ADD", {"addSourceHints": True}).must()
    assert routes_of(sandbox, "main") == ["10.1.0.0/24 eth0", "10.2.0.0/24 net1"]
    shown = sandbox.json(["ip", "-j", "route", "show", "10.2.0.0/24"])
    assert shown[0]["prefsrc"] == "10.2.0.2"


def test_with_a_configured_table_only_rules_are_made(host: Host, sandbox: Sandbox) -> None:
    before = routes_of(sandbox, "main")
    call(host, "ADD", {"table": 500}).must()
    assert rules_of(sandbox) == ["10.2.0.2 500", "fd02::2 500"]
    assert routes_of(sandbox, "main") == before
    call(host, "CHECK", {"table": 500}).must()
    configure(sandbox, ["rule add from 10.2.0.2 table 600"])
    call(host, "DEL", {"table": 500}).must()
    assert rules_of(sandbox) == ["10.2.0.2 600"]


@pytest.mark.parametrize("is_there", [True, False], ids=["with the interface", "without the interface"])
@pytest.mark.parametrize("keys", [{}, {"prevResult": None}], ids=["with a result", "without a result"])
def test_del_removes_the_rules_and_may_be_called_again(
    host: Host, sandbox: Sandbox, keys: dict[str, Any], *, is_there: bool
) -> None:
    call(host, "ADD").must()
    if not is_there:
        sandbox.run(["ip", "link", "del", "net1"])
    for _ in range(2):
        conf = {key: value for key, value in (CONF | keys).items() if value is not None}
        host.plugin("sbr", "DEL", conf, netns=sandbox, ifname="net1").must()
        assert rules_of(sandbox) == []
    assert host.run(["ls", "/run/pycni/attachments"]) == ""


def test_del_creates_no_file_where_the_namespace_was(host: Host) -> None:
    call(host, "DEL", netns="/run/netns/none").must()
    assert host.run(["ls", "/run/netns"]) == ""


FAILURES: dict[str, tuple[dict[str, Any], int, str]] = {
    "no result": ({"prevResult": {"cniVersion": "1.0.0"}}, 7, "No IP addresses supplied on interface: net1"),
    "a gateway that is not reached": (
        {"gateways": ["172.16.0.1"]},
        100,
        "failed to add route '0.0.0.0/0 via 172.16.0.1",
    ),
    "two gateways of a family": (
        {"gateways": ["10.2.0.1", "10.2.0.9"]},
        7,
        '"gateways" must have at most one IPv4 and one IPv6 address',
    ),
}


@pytest.mark.parametrize(("keys", "code", "message"), FAILURES.values(), ids=FAILURES)
def test_an_add_that_fails_leaves_nothing(
    host: Host, sandbox: Sandbox, keys: dict[str, Any], code: int, message: str
) -> None:
    before = (rules_of(sandbox), [routes_of(sandbox, "all", family) for family in ("-4", "-6")])
    answer = call(host, "ADD", keys)
    assert answer.code == code
    assert message in text_of(answer)
    assert before == (rules_of(sandbox), [routes_of(sandbox, "all", family) for family in ("-4", "-6")])


def test_an_add_without_the_interface_says_so(host: Host) -> None:
    host.sandbox("c1")
    assert call(host, "ADD").msg == 'failed to get network interface "net1": Link not found'


def test_an_add_outside_a_chain_says_so(host: Host) -> None:
    host.sandbox("c1")
    conf = {key: value for key, value in CONF.items() if key != "prevResult"}
    answer = host.plugin("sbr", "ADD", conf, netns="/run/netns/c1", ifname="net1")
    assert (answer.code, answer.msg) == (7, "This plugin must be called as chained plugin")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("rule del from 10.2.0.2", "no rule leads packets from 10.2.0.2/32 to table 100"),
        ("-6 rule del from fd02::2", "no rule leads packets from fd02::2/128 to table 101"),
        (
            "route del default table 100",
            "Expected Route {Dst: 0.0.0.0/0, GW: 10.2.0.1} not found in table 100",
        ),
    ],
)
def test_check_reports_what_repair_restores(host: Host, sandbox: Sandbox, damage: str, message: str) -> None:
    call(host, "ADD").must()
    call(host, "CHECK").must()
    sandbox.run(["ip", *damage.split()])
    answer = call(host, "CHECK")
    assert answer.code == 104
    assert message in text_of(answer)
    call(host, "PYCNI_REPAIR").must()
    call(host, "CHECK").must()


def test_gc_removes_the_records_of_invalid_attachments(host: Host, sandbox: Sandbox) -> None:
    call(host, "ADD").must()
    sandbox.delete()
    gc = {"cniVersion": "1.1.0", "cni.dev/valid-attachments": []}
    call(host, "GC", gc, container_id="").must()
    assert host.run(["ls", "/run/pycni/attachments"]) == ""


@pytest.mark.interop
@pytest.mark.skipif(not (GO / "sbr").exists(), reason="containernetworking-plugins is not installed")
def test_both_suites_make_the_same_and_remove_each_others(host: Host, sandbox: Sandbox) -> None:
    def state() -> list[list[str]]:
        shown = (("100", "-4"), ("101", "-6"), ("main", "-4"), ("main", "-6"))
        return [rules_of(sandbox), *(routes_of(sandbox, *each) for each in shown)]

    def add(bindir: Path | None) -> list[list[str]]:
        call(host, "ADD", bindir=bindir).must()
        return state()

    ours = add(None)
    call(host, "DEL", bindir=GO).must()
    assert rules_of(sandbox) == []
    sandbox.run(["ip", "route", "flush", "table", "100"])
    sandbox.run(["ip", "-6", "route", "flush", "table", "101"])
    configure(sandbox, [
        "route add 10.2.0.0/24 dev net1 src 10.2.0.2 scope link",
        "route add fd02::/64 dev net1",
        "route add default via 10.2.0.1",
        "route add default via fd02::1",
    ])  # fmt: skip
    go = add(GO)
    assert ours == go
    call(host, "CHECK").must()
    call(host, "DEL").must()
    assert rules_of(sandbox) == []
