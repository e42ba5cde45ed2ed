"""A default route of any kind keeps all that it has when its metric changes, and none is ever lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.errors import KernelError
from cni.kernel import netns, route
from cni.kernel.rtnetlink import Netlink

if TYPE_CHECKING:
    from cni.testing import Host, Sandbox

# The other end of eth1 is down: the kernel shows routes through it with a flag that it takes from nobody.
LINES = [
    *(f"link add eth{number} type veth peer name far{number}" for number in (0, 1)),
    "addr add 10.1.0.2/24 dev eth0",
    "addr add 10.2.0.2/24 dev eth1",
    "addr add fd01::2/64 dev eth0 nodad",
    "addr add fd02::2/64 dev eth1 nodad",
    *(f"link set {name} up" for name in ("lo", "eth0", "eth1", "far0")),
    "nexthop add id 7 via 10.1.0.1 dev eth0",
]
DEFAULTS = {
    "metrics": "route add default via 10.1.0.1 mtu 1400 advmss 1300 src 10.1.0.2",
    "a realm": "route add default via 10.1.0.1 realm 7",
    "two gateways, one without a carrier": "route add default nexthop via 10.1.0.1 nexthop via 10.2.0.1",
    "a next hop object": "route add default nhid 7",
    "a type of service": "route add default tos 0x10 via 10.1.0.1",
    "a gateway that is not on the link": "route add default via 172.16.0.1 dev eth0 onlink",
    "IPv6 with a preference": "-6 route add default via fd01::1 pref low",
    "IPv6 with two gateways": "-6 route add default nexthop via fd01::1 nexthop via fd02::1",
}


@pytest.fixture
def sandbox(host: Host) -> Sandbox:
    sandbox = host.sandbox("c1")
    sandbox.run(["sysctl", "-q", "-w", "net.ipv6.conf.default.addr_gen_mode=1"])
    sandbox.run(["ip", "-batch", "-"], "".join(f"{line}\n" for line in LINES))
    return sandbox


def defaults(sandbox: Sandbox) -> str:
    """Show the default routes without flags that follow the carrier, which comes at a time of its own."""
    shown = [sandbox.run(["ip", "-d", each, "route", "show", "default"]) for each in ("-4", "-6")]
    return "".join(shown).replace(" linkdown", "").replace(" dead", "")


def change(path: str, metric: int) -> list[str]:
    """Change the metric of every default route; return the kernel's refusals."""
    refusals = []
    with netns.open_netns(path) as ns, Netlink(ns) as nl:
        for each in route.list_defaults(nl):
            try:
                route.change_metric(nl, each, metric)
            except KernelError as error:
                refusals.append(str(error))
    return refusals


@pytest.mark.parametrize("line", DEFAULTS.values(), ids=DEFAULTS)
def test_all_but_the_metric_stays(host: Host, sandbox: Sandbox, line: str) -> None:
    sandbox.run(["ip", *line.replace("default", "default metric 50").split()])
    before = defaults(sandbox)
    assert host.call(change, sandbox.path, 500) == []
    assert defaults(sandbox) == before.replace("metric 50 ", "metric 500 ") != before


def test_a_route_whose_metric_the_kernel_does_not_change_stays(host: Host, sandbox: Sandbox) -> None:
    for metric in ("50", "500"):
        sandbox.run(["ip", "route", "add", "default", "via", "10.1.0.1", "metric", metric])
    before = defaults(sandbox)
    assert ["file exists" in each.lower() for each in host.call(change, sandbox.path, 500)] == [True, True]
    assert defaults(sandbox) == before
