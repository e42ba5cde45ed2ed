"""Hosts that drop what they receive: queries are accepted, by rules that end with the names of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.names_world import Network, ask, is_silent
from tests.netns.firewall_hosts import VARIANTS, equipped, plain

if TYPE_CHECKING:
    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")


@pytest.mark.parametrize("variant", VARIANTS)
def test_queries_are_accepted_while_the_network_has_names(host: Host, variant: str) -> None:
    net = Network(host)

    def rules() -> list[str]:
        saved = [host.run([f"{each}-save", "-t", "filter"]) for each in ("iptables", "ip6tables")]
        lines = "".join(saved).splitlines()
        return [line for line in lines if "CNI-NM-" in line or "CNI-NAMES" in line]

    with equipped(host, plain(variant)):
        for family in ("iptables", "ip6tables"):
            host.run([family, "-A", "INPUT", "-i", "lo", "-j", "ACCEPT"])
            # The bridge has to resolve its neighbours.
            if family == "ip6tables":
                host.run([family, "-A", "INPUT", "-p", "icmpv6", "-j", "ACCEPT"])
            host.run([family, "-P", "INPUT", "DROP"])
        web, other = net.attach("web"), net.attach("other")
        for server in (net.gateway, net.gateway6):
            for tcp in (False, True):
                assert ask(other.sandbox, "web", server=server, tcp=tcp) == ("NOERROR", [web.addresses[0]])
        assert not other.sandbox.reaches(net.gateway, 80)
        assert net.call("CHECK", web).ok
        made = rules()
        host.run(["iptables", "-F", "CNI-NAMES"])
        assert net.call("CHECK", web).code == 104
        assert is_silent(other.sandbox, "web", net.gateway)
        assert net.call("PYCNI_REPAIR", web).ok
        assert sorted(rules()) == sorted(made)
        net.detach(web)
        assert sorted(rules()) == sorted(made)
        net.detach(other)
        # What leads to the rules of all networks stays, and is empty.
        assert all("CNI-NM-" not in line for line in rules())


def test_a_host_without_a_filter_gets_no_rules(host: Host) -> None:
    before = host.run(["nft", "list", "ruleset"])
    net = Network(host)
    web = net.attach("web")
    assert host.run(["nft", "list", "ruleset"]) == before
    net.detach(web)
