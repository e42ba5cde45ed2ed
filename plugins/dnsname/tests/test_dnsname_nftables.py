"""Hosts whose own nftables rules drop what they receive: queries pass the chains that drop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.names_world import Foreign, Network, ask, is_silent
from tests.netns.firewall_hosts import NFT, equipped

if TYPE_CHECKING:
    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")

OURS = "pycni"
_USUAL = """
    ct state established,related accept
    iif lo accept
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
"""
# One chain drops by its policy. One drops by its last rule. One that only bans addresses is left alone.
CLOSED = f"""
flush ruleset
table inet filter {{
  chain input {{ type filter hook input priority 0; policy drop; {_USUAL} }}
}}
table ip6 second {{
  chain in {{ type filter hook input priority 10; policy accept; {_USUAL}
    counter reject
  }}
}}
table inet bans {{
  chain input {{ type filter hook input priority -1; policy accept; ip saddr 192.0.2.9 drop; }}
}}
"""
# What is dropped here is no matter of the chain's end.
MIDDLE = f"""
flush ruleset
table inet filter {{
  chain input {{ type filter hook input priority 0; policy accept; {_USUAL}
    ip saddr 10.0.0.0/8 udp dport 53 drop
    tcp dport 22 accept
  }}
}}
"""


def load(host: Host, ruleset: str) -> list[str]:
    host.run(["sh", "-c", 'echo "$0" | nft -f -', ruleset])
    return rules(host)


def rules(host: Host) -> list[str]:
    """Return the ruleset without counters."""
    return host.run(["nft", "--stateless", "list", "ruleset"]).splitlines()


def ours(host: Host) -> list[str]:
    return [each.strip() for each in rules(host) if OURS in each]


def answers(net: Network, asker: object) -> bool:
    """Return whether a name is answered by both families and both transports."""
    return all(
        ask(asker, "web", server=server, tcp=tcp)[0] == "NOERROR"  # type: ignore[arg-type]
        for server in (net.gateway, net.gateway6)
        for tcp in (False, True)
    )


def test_queries_pass_the_chains_that_drop_while_the_network_has_names(host: Host) -> None:
    net, second = Network(host), Network(host, 2)
    with equipped(host, NFT):
        before = load(host, CLOSED)
        web, other = net.attach("web"), net.attach("other")
        assert answers(net, other.sandbox)
        with host.serve(81, "tcp", net.gateway):
            assert not other.sandbox.reaches(net.gateway, 81)
        # One rule for each subnet and its gateway; two lead to them, in each of the two chains.
        made = ours(host)
        assert len([each for each in made if "accept" in each]) == 3
        assert len([each for each in made if "jump" in each]) == 4
        assert "10.2.0" not in str(made)
        assert net.call("CHECK", web).ok
        assert net.status().ok
        apart = second.attach("apart")
        assert ask(apart.sandbox, "apart", server=second.gateway)[0] == "NOERROR"
        # A gateway is no address for the containers of another network.
        assert is_silent(apart.sandbox, "web", net.gateway)
        second.detach(apart)
        assert ours(host) == made
        net.detach(web)
        assert ours(host) == made
        net.detach(other)
        assert rules(host) == before


def test_rules_come_back_by_repair_and_by_the_next_container(host: Host) -> None:
    net = Network(host)
    with equipped(host, NFT):
        before = load(host, CLOSED)
        web = net.attach("web")
        made = ours(host)
        # An administrator loads the ruleset again, or flushes a chain.
        for ruleset in (CLOSED, "flush chain inet filter pycni-names"):
            load(host, ruleset)
            answer = net.call("CHECK", web)
            assert answer.code == 104
            assert "inet filter input" in str(answer.json)
            assert "ip saddr 10.1.0.0/24 ip daddr 10.1.0.1 accept" in str(answer.json)
            assert is_silent(web.sandbox, "web", net.gateway)
            assert net.status().code == 51
            net.call("PYCNI_REPAIR", web).must()
            assert sorted(ours(host)) == sorted(made)
            assert answers(net, web.sandbox)
        load(host, CLOSED)
        other = net.attach("other")
        assert sorted(ours(host)) == sorted(made)
        assert answers(net, web.sandbox)
        # GC removes the rules with the last name.
        net.call("GC", web, **{"cni.dev/valid-attachments": []}).must()
        assert rules(host) == before
        net.detach(other)


def test_an_add_that_fails_leaves_no_rule(host: Host) -> None:
    net = Network(host)
    with equipped(host, NFT):
        before = load(host, CLOSED)
        web = net.prepare("web")
        with Foreign(host, net.gateway):
            assert net.call("ADD", web).code == 103
        assert rules(host) == before
        # Without nft no rule can be added.
        host.run(["rm", "/run/some/nft"])
        answer = net.call("ADD", web)
        assert (answer.code, answer.msg) == (
            101,
            "could not accept queries in other tables: nft is not installed",
        )
        host.run(["ln", "-s", "/run/all/nft", "/run/some/nft"])
        assert rules(host) == before


def test_a_rule_that_drops_is_named(host: Host) -> None:
    net = Network(host)
    with equipped(host, NFT):
        before = load(host, MIDDLE)
        web = net.attach("web")
        assert rules(host) == before
        answer = net.call("CHECK", web)
        assert answer.code == 104
        assert "the container gets no answer from the DNS server at 10.1.0.1" in answer.msg
        assert "chain input of table filter" in answer.msg
        rule = "ip saddr 10.1.0.0/24 ip daddr 10.1.0.1 meta l4proto { tcp, udp } th dport 53 accept"
        assert rule in str(answer.json)
        status = net.status()
        assert status.code == 51
        assert "10.1.0.1" in str(status.json)
        # The administrator follows the advice.
        host.run(["nft", f"insert rule inet filter input {rule}"])
        assert net.call("CHECK", web).ok
        assert net.status().ok
        assert ask(web.sandbox, "web", server=net.gateway)[0] == "NOERROR"
        net.detach(web)
