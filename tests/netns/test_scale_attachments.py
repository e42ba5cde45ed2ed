"""An attachment costs the same beside ten others and beside hundreds, and next to 10,000 foreign rules.

Counted, not timed: what the plugins send to the kernel and hear of it, and which files they read.
PYCNI_SCALE sets the number of the others. The kernel checks all chains at each change, so making a thousand
takes five times as long as making the 300 of a usual run.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni.kernel.rtnetlink import RTM_GETADDR
from cni.testing import Host, make_bindir, why_no_namespaces
from cni.testing.namespaces import entered
from plugin_table import declared, packages
from tests.netns import scale_rules
from tests.netns.scale_chain import VERBS, Chain, namespaces
from tests.netns.scale_meter import FILES, NETLINK, OPENED, PROCESSES, RECEIVED, Meter
from tests.support import scene

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.netns.scale_chain import Costs

NO_IPV6 = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")
FEW, MANY, RULES = 10, int(os.environ.get("PYCNI_SCALE", "300")), 10_000
PLUGINS = (scene.INTERFACE, scene.PORTS)
CALLS = [(verb, plugin) for verb in VERBS for plugin in PLUGINS]
# Names have more digits, and of the foreign rules the one is told that is in a chain with one of ours.
SLACK = 1.1
# A chain that all rules hang on, and that is listed, has one that leads to the foreign ones.
ONE_RULE = {RECEIVED: 300}
# What follows in the name of a chain that is a container's.
_OWN = re.compile("[0-9a-f]{20,}$")

Stages = dict[str, "Costs"]


def measure(bindir: Path, backend: str, there: int, attachments: int) -> Costs:
    meter = Meter()
    chain = Chain(bindir, backend, there)
    chain.fill(attachments)
    return chain.measure(meter)


def switch_off_ipv6(namespaces: list[str]) -> None:
    """Switch off IPv6 for the links to come, here and in other namespaces.

    Each link that goes up announces itself to all ports of its bridge. The packets of hundreds of links
    overflow the queues of the machine's cores, and tests beside this one would lose packets of theirs.
    """
    for name in namespaces:
        with entered(f"/run/netns/{name}"):
            NO_IPV6.write_text("1")
    NO_IPV6.write_text("1")


def run_stages(bindir: Path, backend: str) -> Iterator[tuple[str, Costs]]:
    with Host(bindir) as host:
        host.run(["ip", "-batch", "-"], "".join(f"netns add {name}\n" for name in namespaces(MANY)))
        host.call(switch_off_ipv6, namespaces(MANY))
        yield "few", host.call(measure, bindir, backend, 0, FEW)
        yield "many", host.call(measure, bindir, backend, FEW, MANY)
        scale_rules.write_iptables(host, RULES)
        scale_rules.write_nftables(host, RULES)
        yield "next to foreign rules", host.call(measure, bindir, backend, MANY, MANY)


@pytest.fixture(scope="module")
def bindir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    return make_bindir(tmp_path_factory.mktemp("scale"), packages(declared()))


@pytest.fixture(scope="module")
def nftables(bindir: Path) -> Stages:
    return dict(run_stages(bindir, "nftables"))


@pytest.fixture(scope="module")
def iptables(bindir: Path) -> Stages:
    return dict(run_stages(bindir, "iptables"))


def grown(stages: Stages, figures: tuple[str, ...], stage: str = "many", before: str = "few") -> list[str]:
    """Return the figures of the cheapest round that have grown by more than one rule's cost."""
    return [
        f"{verb} of {plugin}, {name}: {costs.figures[name]} instead of {was}"
        for (verb, plugin), costs in stages[stage].items()
        for name in figures
        if costs.figures[name]
        > SLACK * (was := stages[before][verb, plugin].most[name]) + ONE_RULE.get(name, 0)
    ]


@pytest.mark.long
def test_every_counted_figure_is_positive(nftables: Stages, iptables: Stages) -> None:
    for stages in (nftables, iptables):
        assert all(list(costs) == [*CALLS[:2], *reversed(CALLS[2:])] for costs in stages.values())
        for costs in stages.values():
            assert all(cost.figures[name] for cost in costs.values() for name in (*NETLINK, OPENED))


def test_nftables_attachments_cost_the_same_beside_ten_and_hundreds(nftables: Stages) -> None:
    assert grown(nftables, (*NETLINK, *FILES)) == []


def test_nftables_attachments_cost_the_same_next_to_foreign_rules(nftables: Stages) -> None:
    assert grown(nftables, (*NETLINK, *FILES), "next to foreign rules", "many") == []


@pytest.mark.parametrize(("verb", "plugin"), CALLS)
def test_nftables_lists_nothing_and_commits_once(nftables: Stages, verb: str, plugin: str) -> None:
    for costs in nftables.values():
        assert costs[verb, plugin].listings() == []
        assert costs[verb, plugin].batches() == 1
        assert costs[verb, plugin].figures[PROCESSES] == 0


def test_of_links_and_addresses_only_those_of_the_bridge_are_listed(nftables: Stages) -> None:
    listed = [cost.sent for cost in nftables["many"].values()]
    kinds = [each.kind for sent in listed for each in sent if each.is_listing and not each.is_for_netfilter]
    assert kinds == [RTM_GETADDR]


def test_iptables_attachments_cost_the_same_beside_ten_and_hundreds(iptables: Stages) -> None:
    assert grown(iptables, (*NETLINK, *FILES)) == []


def test_iptables_attachments_cost_the_same_next_to_foreign_rules(iptables: Stages) -> None:
    assert grown(iptables, (*NETLINK, *FILES), "next to foreign rules", "many") == []


@pytest.mark.parametrize(
    ("verb", "plugin", "chains"),
    [
        ("ADD", scene.INTERFACE, set()),
        ("ADD", scene.PORTS, {"CNI-HOSTPORT-SETMARK", "CNI-HOSTPORT-MASQ", "PREROUTING", "OUTPUT"}),
        ("DEL", scene.PORTS, {"CNI-DN-"}),
        ("DEL", scene.INTERFACE, {"CNI-"}),
    ],
)
def test_iptables_lists_only_what_all_ports_share_and_its_own_chain(
    iptables: Stages, verb: str, plugin: str, chains: set[str]
) -> None:
    for costs in iptables.values():
        cost = costs[verb, plugin]
        assert {_OWN.sub("", each.chain) for each in cost.listings()} == chains
        assert cost.batches() == 1
        assert cost.figures[PROCESSES] == 0
