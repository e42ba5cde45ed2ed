"""DEL and an ADD that fails give an interface back the addresses and routes that it had."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.testing import Host, warm, why_no_namespaces
from cni.testing.faults import TELL, TERM, Fault, list_met

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cni.testing import Answer


pytestmark = pytest.mark.needs_kernel("vrf")

LINES = [
    "link add net1 type veth peer name far1",
    "addr add 10.1.0.2/24 dev net1",
    "addr add fd01::2/64 dev net1 nodad",
    "addr add fd01::3/64 dev net1 nodad noprefixroute",
    "link set net1 up",
    "link set far1 up",
    "route add default via 10.1.0.1 dev net1 mtu 1400",
    "route add 10.20.0.0/16 dev net1 scope link metric 5 proto static",
    "route add default via fd01::1 dev net1 pref high",
    "route add fd20::/64 via fd01::1 dev net1 metric 7 proto static",
]
RESULT = {"cniVersion": "1.1.0", "interfaces": [{"name": "net1", "sandbox": "/run/netns/c1"}], "ips": []}


def prepare(host: Host) -> None:
    sandbox = host.sandbox("c1")
    # The kernel adds link-local addresses and their routes at a later time of its own.
    sandbox.run(["sysctl", "-q", "-w", "net.ipv6.conf.default.addr_gen_mode=1"])
    sandbox.run(["ip", "-batch", "-"], "".join(f"{line}\n" for line in LINES))


def call(host: Host, verb: str, fault: Fault | None = None) -> Answer:
    conf = {
        "cniVersion": "1.1.0",
        "name": "two",
        "type": "vrf",
        "vrfname": "blue",
        "prevResult": RESULT,
    }
    env = fault.env if fault else {}
    return host.plugin("vrf", verb, conf, netns="/run/netns/c1", ifname="net1", env=env)


def test_nothing_is_left_when_only_vrf_is_removed(host: Host) -> None:
    prepare(host)
    before = host.snapshot()
    call(host, "ADD").must()
    shown = host.json(["ip", "-n", "c1", "-j", "route", "show", "vrf", "blue"])
    assert {"default", "10.20.0.0/16", "10.1.0.0/24"} == {each["dst"] for each in shown}
    for _ in range(2):
        call(host, "DEL").must()
        assert before.differences(host.snapshot()) == []


def test_interrupted_in_add_with_the_interface_there(faulty_host: Host) -> None:
    """The call itself takes back what it has done."""
    host = faulty_host
    met = [each.split(" ") for each in list_met(call(host, "ADD", Fault(TELL, "")))]
    call(host, "DEL").must()
    before = host.snapshot()
    faults = [Fault(TERM, point, int(number)) for point, number in met if point != "answer.written"]
    assert "netlink.changed" in {each.point for each in faults}
    for fault in faults:
        answer = call(host, "ADD", fault)
        assert (answer.code, fault.was_met(answer)) == (11, True)
        assert before.differences(host.snapshot()) == [], fault


@pytest.fixture
def faulty_host(faulty_bindir: Path) -> Iterator[Host]:
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    with Host(faulty_bindir) as host:
        warm.set_up(host.place, workers=1)
        prepare(host)
        yield host
