"""Traffic passes the limits: the kernel counts packets that had to wait, and those that did not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.network import Network

if TYPE_CHECKING:
    from cni.testing import Host, Sandbox

# 100 kB per second and a burst of 20 kB; a packet may wait for seconds, so that none is lost.
RATE, BURST = 800_000, 160_000
CONF: dict[str, Any] = {"latencyMs": 5000}
INGRESS = CONF | {"ingressRate": RATE, "ingressBurst": BURST}
EGRESS = CONF | {"egressRate": RATE, "egressBurst": BURST}
# Pings of 1000 bytes at once: 60 kB are three times the burst.
PINGS, BYTES = 60, 1000


class Place:
    """Two containers on one network; the first one gets limits."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.net = Network(host, isGateway=True)
        one = self.net.add("c1")
        two = self.net.add("c2")
        self.sandbox: Sandbox = one.sandbox
        self.result, self.end, self.address, self.address6 = (
            one.answer.json,
            one.host_end,
            one.address,
            one.address6,
        )
        self.peer, self.peer_address, self.peer_address6 = two.sandbox, two.address, two.address6

    def limit(self, conf: dict[str, Any]) -> None:
        keys = {"cniVersion": "1.1.0", "name": "net1", "type": "bandwidth", "prevResult": self.result}
        self.host.plugin("bandwidth", "ADD", keys | conf, netns=self.sandbox).must()

    def waited(self) -> tuple[int, int]:
        """Return how often packets had to wait on the way into the container, and on the way out."""
        counts = []
        ifbs = [each for each in self.host.links() if each.startswith("bwp")]
        for name in (self.end, *ifbs):
            shown = self.host.json(["tc", "-s", "-j", "qdisc", "show", "dev", name, "root"])
            counts.append(sum(each.get("overlimits", 0) for each in shown))
        return counts[0], counts[1] if ifbs else 0

    def ping(self, source: Sandbox, address: str) -> None:
        """Send packets at once, and wait for the answers.

        What does not fit into the socket's buffer follows at the interval, which is a second by default.
        """
        at_once = ["-c", str(PINGS), "-l", str(PINGS), "-i", "0.002"]
        source.run(["ping", *at_once, "-s", str(BYTES), "-W", "3", "-q", address])


@pytest.fixture
def place(host: Host) -> Place:
    return Place(host)


@pytest.mark.parametrize("version", [4, 6])
def test_what_a_container_receives_has_to_wait(place: Place, version: int) -> None:
    address = place.address if version == 4 else place.address6
    place.ping(place.peer, address)
    place.limit(INGRESS)
    assert place.waited() == (0, 0)
    place.ping(place.peer, address)
    received, sent = place.waited()
    assert (received > 0, sent) == (True, 0)


@pytest.mark.parametrize("version", [4, 6])
def test_what_a_container_sends_has_to_wait(place: Place, version: int) -> None:
    address = place.peer_address if version == 4 else place.peer_address6
    place.limit(EGRESS)
    place.ping(place.sandbox, address)
    received, sent = place.waited()
    assert (received, sent > 0) == (0, True)


SUBNETS: list[tuple[dict[str, Any], bool]] = [
    ({"unshapedSubnets": ["10.1.0.0/24", "fd01::/64"]}, False),
    ({"unshapedSubnets": ["10.2.0.0/24", "fd02::/64"]}, True),
    ({"shapedSubnets": ["10.1.0.0/24", "fd01::/64"]}, True),
    ({"shapedSubnets": ["10.2.0.0/24", "fd02::/64"]}, False),
    # The container itself is no peer of its own.
    ({"unshapedSubnets": ["10.1.0.2/32", "fd01::2/128"]}, True),
]


@pytest.mark.parametrize(("subnets", "is_limited"), SUBNETS, ids=str)
def test_subnets_are_those_of_the_peer(place: Place, subnets: dict[str, Any], *, is_limited: bool) -> None:
    place.limit(INGRESS | EGRESS | subnets)
    pairs = ((place.address, place.peer_address), (place.address6, place.peer_address6))
    for own, peer in pairs:
        # Answers come at the pace of what was asked: only who asks sends all at once.
        received, _ = place.waited()
        place.ping(place.peer, own)
        assert (place.waited()[0] > received) == is_limited
        _, sent = place.waited()
        place.ping(place.sandbox, peer)
        assert (place.waited()[1] > sent) == is_limited


def test_a_container_that_was_not_limited_is_not_slowed_down(place: Place) -> None:
    place.limit(INGRESS | EGRESS)
    third = place.net.add("c3")
    place.ping(place.peer, third.address)
    assert place.waited() == (0, 0)
