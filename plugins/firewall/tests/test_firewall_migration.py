"""A node changes from the Go plugin to ours and back: who removes what of containers, and what stays."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import GO
from tests.netns.chained_networks import ChainedNetwork, rules

if TYPE_CHECKING:
    from cni.testing import Host

Network = partial(ChainedNetwork, "firewall")
pytestmark = [
    pytest.mark.modes("warm"),
    pytest.mark.interop,
    pytest.mark.skipif(not (GO / "firewall").exists(), reason="the Go plugins are not installed"),
]
CONTAINERS = 3
# What all networks share stays: the chains, and the jumps to them.
SHARED = ("CNI-FORWARD", "CNI-ADMIN", "CNI-ISOLATION-STAGE-1", "CNI-ISOLATION-STAGE-2")
SHOW = (
    "find /run/pycni/attachments /run/pycni/firewall -type f 2>/dev/null; nft list tables | grep pycni; true"
)


def own_rules(host: Host, network: ChainedNetwork) -> list[str]:
    """Return the rules that name the network's bridge or an address of it."""
    number = network.net.bridge[3:]
    return rules(host, f" {network.net.bridge} ", f" 10.{number}.0.", f" fd00:{number}::")


def shared_rules(host: Host) -> set[str]:
    """Return the chains that the rules of a host are in."""
    return {line.split()[2] for line in rules(host)}


@pytest.mark.parametrize("policy", ["open", "same-bridge"])
def test_ours_takes_over_all_containers_of_the_go_plugin(host: Host, policy: str) -> None:
    network = Network(host, backend="iptables", ingressPolicy=policy)
    all_of_them = [network.container(number) for number in range(1, CONTAINERS + 1)]
    for each in all_of_them:
        network.call("ADD", each, bindir=GO).must()
    for each in all_of_them:
        network.call("CHECK", each).must()
    assert len(own_rules(host, network)) >= 4 * CONTAINERS
    for each in all_of_them:
        for _ in range(2):
            network.call("DEL", each).must()
    host.run(["ip", "link", "delete", network.net.bridge])
    network.gc().must()
    assert own_rules(host, network) == []
    assert host.run(["sh", "-c", SHOW]) == ""


@pytest.mark.parametrize(
    "keys",
    [
        {"backend": "iptables", "ingressPolicy": "open"},
        {"backend": "iptables", "ingressPolicy": "same-bridge"},
        {"backend": "nftables", "ingressPolicy": "same-bridge"},
    ],
    ids=["iptables-open", "iptables-same-bridge", "nftables"],
)
def test_what_the_go_plugins_del_leaves_of_ours_goes_with_gc(host: Host, keys: dict[str, Any]) -> None:
    network = Network(host, **keys)
    all_of_them = [network.container(number) for number in range(1, CONTAINERS + 1)]
    for each in all_of_them:
        network.call("ADD", each).must()
    is_iptables = keys["backend"] == "iptables"
    # The Go plugin knows no backend of this name.
    its = {} if is_iptables else {"backend": "iptables"}
    for each in all_of_them:
        if is_iptables:
            network.call("CHECK", each, bindir=GO).must()
        network.call("DEL", each, bindir=GO, conf=its).must()
    addresses = [text for each in all_of_them for text in (f"{each.address}/", f"{each.address6}/")]
    assert rules(host, *addresses) == []
    # Records stay, and the rules of the bridge, or all of table inet pycni_firewall.
    assert host.run(["sh", "-c", SHOW]) != ""
    host.run(["ip", "link", "delete", network.net.bridge])
    network.gc().must()
    assert own_rules(host, network) == []
    assert shared_rules(host) <= {"FORWARD", *SHARED}
    left = [line for line in host.run(["sh", "-c", SHOW]).splitlines() if "pycni_firewall" not in line]
    assert left == []
    assert "elements" not in host.run(["sh", "-c", "nft list ruleset | grep -A999 pycni_firewall || true"])
