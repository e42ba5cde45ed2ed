"""All verbs of the vrf plugin on real hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import GO, Host
from tests.support.late_kernel import make_late_bindir, waited_for

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cni.testing import Answer, Sandbox

pytestmark = pytest.mark.needs_kernel("vrf")


def result_of(ifname: str) -> dict[str, Any]:
    return {"cniVersion": "1.0.0", "interfaces": [{"name": ifname, "sandbox": "/run/netns/c1"}], "ips": []}


def call(host: Host, verb: str, ifname: str = "net1", **keys: Any) -> Answer:
    conf: dict[str, Any] = {"cniVersion": "1.0.0", "name": "two", "type": "vrf", "vrfname": "blue"}
    options = {"bindir": keys.pop("bindir")} if "bindir" in keys else {}
    conf |= {"prevResult": result_of(ifname), **keys}
    return host.plugin("vrf", verb, conf, netns="/run/netns/c1", ifname=ifname, **options)


def configure(place: Host | Sandbox, lines: Iterable[str]) -> None:
    place.run(["ip", "-batch", "-"], "".join(f"{line}\n" for line in lines))


@pytest.fixture
def sandbox(host: Host) -> Sandbox:
    """Return a container with net1 and net2, each with addresses and a route."""
    return make_container(host)


def make_container(host: Host) -> Sandbox:
    sandbox = host.sandbox("c1")
    for number in (1, 2):
        configure(sandbox, [
            f"link add net{number} type veth peer name far{number}",
            f"addr add 10.{number}.0.2/24 dev net{number}",
            f"addr add fd0{number}::2/64 dev net{number} nodad",
            f"link set net{number} up",
            f"link set far{number} up",
            f"route add 10.{number}0.0.0/16 via 10.{number}.0.1",
            f"route add fd{number}0::/64 via fd0{number}::1",
        ])  # fmt: skip
    return sandbox


def masters(sandbox: Sandbox) -> dict[str, str]:
    shown = sandbox.json(["ip", "-j", "link"])
    return {each["ifname"]: each["master"] for each in shown if "master" in each}


def test_the_interface_keeps_addresses_and_routes_in_the_table_of_the_vrf(
    host: Host, sandbox: Sandbox
) -> None:
    call(host, "ADD", table=1000).must()
    assert masters(sandbox) == {"net1": "blue"}
    assert sandbox.addresses("net1") == ["10.1.0.2/24", "fd01::2/64"]
    shown = sandbox.json(["ip", "-j", "route", "show", "table", "1000"])
    assert "10.10.0.0/16" in {each["dst"] for each in shown}
    shown = sandbox.json(["ip", "-6", "-j", "route", "show", "table", "1000"])
    assert {"fd10::/64", "fd01::/64"} <= {each["dst"] for each in shown}
    call(host, "CHECK", table=1000).must()
    assert call(host, "CHECK", table=7).msg == "VRF blue has routing table 1000, not 7"


def test_add_answers_when_packets_to_the_addresses_are_received(tmp_path: Path) -> None:
    """The kernel removes IPv6 addresses from a link that enters a VRF."""
    with Host(make_late_bindir(tmp_path)) as host:
        sandbox = make_container(host)
        assert waited_for(call(host, "ADD", table=1000)) == {"fd01::2"}
        found = sandbox.run(["ip", "-6", "route", "get", "fd01::2", "oif", "net1"])
        assert found.startswith("local ")


def test_two_interfaces_share_a_vrf_which_goes_with_the_last(host: Host, sandbox: Sandbox) -> None:
    for name in ("net1", "net2"):
        call(host, "ADD", name).must()
    assert masters(sandbox) == {"net1": "blue", "net2": "blue"}
    for _ in range(2):
        call(host, "DEL", "net1").must()
    assert masters(sandbox) == {"net2": "blue"}
    sandbox.run(["ip", "link", "del", "net2"])
    call(host, "DEL", "net2").must()
    assert "blue" not in sandbox.links()


def test_a_second_vrf_gets_another_table(host: Host, sandbox: Sandbox) -> None:
    call(host, "ADD", "net1").must()
    call(host, "ADD", "net2", vrfname="red").must()
    shown = sandbox.json(["ip", "-d", "-j", "link", "show", "type", "vrf"])
    assert [each["linkinfo"]["info_data"]["table"] for each in shown] == [1, 2]


@pytest.mark.usefixtures("sandbox")
def test_what_cannot_be_is_told_and_leaves_nothing(host: Host) -> None:
    call(host, "ADD", "net1", table=5).must()
    before = host.snapshot()
    assert call(host, "ADD", "net2", table=6).msg == ("VRF blue already exist with different routing table 5")
    assert call(host, "ADD", "net1", vrfname="red").msg == "interface net1 has already a master set: blue"
    assert call(host, "ADD", "net2", vrfname="far1").code == 105
    assert call(host, "ADD", "net9").msg == "could not find interface net9: Link not found"
    assert before.differences(host.snapshot()) == []


def test_check_reports_what_repair_restores(host: Host, sandbox: Sandbox) -> None:
    call(host, "ADD").must()
    sandbox.run(["ip", "link", "set", "net1", "nomaster"])
    assert call(host, "CHECK").msg == "Interface net1 is not part of VRF blue"
    call(host, "PYCNI_REPAIR").must()
    call(host, "CHECK").must()
    sandbox.run(["ip", "link", "del", "blue"])
    call(host, "PYCNI_REPAIR").must()
    call(host, "CHECK").must()


@pytest.mark.interop
@pytest.mark.skipif(not (GO / "vrf").exists(), reason="containernetworking-plugins is not installed")
def test_each_suite_checks_and_removes_what_the_other_made(host: Host, sandbox: Sandbox) -> None:
    for first, second in ((None, GO), (GO, None)):
        call(host, "ADD", bindir=first).must()
        call(host, "CHECK", bindir=second).must()
        call(host, "DEL", bindir=second).must()
        assert masters(sandbox) == {}
        assert "blue" not in sandbox.links()
