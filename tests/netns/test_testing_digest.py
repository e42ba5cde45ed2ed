"""A snapshot that is not taken again, as its digest is the same, shows what one that is taken does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.testing.snapshot import Known
from tests.support.patience import wait_until

if TYPE_CHECKING:
    from cni.testing import Host

PREPARED = """
ip link add br0 type bridge
ip link add eth0 type veth peer name eth1
ip link set eth0 master br0
ip link set lo up
ip addr add 10.9.0.1/24 dev br0
ip -6 addr add fd09::1/64 dev br0 nodad
ip link set br0 up
nft add table ip t
nft 'add chain ip t c { type filter hook input priority 0; policy accept; }'
nft 'add map ip t m { type inet_service : ipv4_addr; }'
nft 'add set ip t s { type ipv4_addr; flags interval; }'
iptables -t nat -A POSTROUTING -s 10.9.0.0/24 -m comment --comment one -j MASQUERADE
mkdir -p /run/pycni /var/lib/cni/networks
echo one > /run/pycni/file
"""
# Each is a change that a snapshot shows.
CHANGES = [
    "ip link set eth0 alias x",
    "ip link set eth0 group 7",
    "ip link set eth0 mtu 1400",
    # Older kernels rename no link that is up.
    "ip link set eth0 name eth9",
    "ip link set eth9 name eth0",
    "ip link set eth0 up",
    "ip link set eth0 promisc on",
    "ip link set eth0 type bridge_slave hairpin on",
    "ip link set eth0 address 02:00:00:00:00:09",
    "ip link set eth1 netns c1",
    "ip link set br0 type bridge forward_delay 300",
    "ip link set br0 type bridge stp_state 1",
    "ip link set eth0 nomaster",
    "ip link delete eth0",
    "ip addr add 10.9.0.2/24 dev br0",
    "ip addr add fe80::9/64 dev br0 nodad",
    "ip route add 10.8.0.0/16 via 10.9.0.9",
    "ip addr delete 10.9.0.1/24 dev br0",
    "ip route add 10.8.0.0/16 dev br0 table 99",
    "ip route add blackhole fd08::/64",
    "ip route replace 10.9.0.0/24 dev br0 metric 7",
    "ip -n c1 link set lo up",
    "ip -n c1 route add blackhole 10.7.0.0/16",
    "nft add rule ip t c tcp dport 80 counter drop",
    "nft add element ip t m '{ 80 comment \"x\" : 10.9.0.3 }'",
    "nft add element ip t s '{ 10.9.0.0/25 }'",
    "nft 'chain ip t c { policy drop; }'",
    "nft add chain ip t d",
    "nft add table inet other",
    "nft add counter ip t n",
    "nft delete map ip t m",
    "ip netns exec c1 nft add table ip t",
    "iptables -t nat -A POSTROUTING -s 10.9.0.0/24 -m comment --comment two -j MASQUERADE",
    "iptables -t nat -R POSTROUTING 1 -s 10.9.0.0/24 -m comment --comment two -j MASQUERADE",
    "iptables -P FORWARD DROP",
    "iptables-legacy -A FORWARD -j DROP",
    "echo two > /run/pycni/file",
    "chmod 600 /run/pycni/file",
    "touch /var/lib/cni/networks/new",
    "ln -s x /run/pycni/link",
    "rm /run/pycni/file",
]


def taken(host: Host) -> object:
    """Return a snapshot of a host that is taken again in any case."""
    return Known().snapshot(host.place, exact=False)


@pytest.fixture
def prepared(host: Host) -> Host:
    """Return a host with something of each kind, which is at rest: no address changes any more."""
    host.sandbox("c1")
    host.run(["sh", "-e"], PREPARED)
    wait_until(lambda: "tentative" not in host.run(["ip", "addr"]))
    return host


def test_every_change_is_seen(prepared: Host) -> None:
    """Each change is made on the host that has all earlier ones, where these leave its object."""
    unseen = []
    for change in CHANGES:
        before = prepared.snapshot()
        done = prepared.place.run(["sh", "-ec", change], check=False)
        after = prepared.snapshot()
        assert after == taken(prepared), change
        unseen += [f"{change}: {done.stderr}"] if after == before else []
    assert not unseen, "\n".join(unseen)
