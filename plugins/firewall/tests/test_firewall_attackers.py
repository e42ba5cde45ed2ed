"""A process with CAP_NET_ADMIN and CAP_NET_RAW in a container gets no packet to a container it is kept from.

The victim counts what arrives, so that no answer is needed.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.netns.chained_networks import BACKENDS, ChainedNetwork

if TYPE_CHECKING:
    from cni.testing import Host
    from cni.testing.wired import Container

Network = partial(ChainedNetwork, "firewall")
pytestmark = pytest.mark.modes("warm")

PORT = 7777
# Each packet has a payload that nothing else on the host sends, behind 8 bytes of UDP header.
COUNT = f"""
table netdev watch {{
    counter seen {{ }}
    chain in {{
        type filter hook ingress device eth0 priority 0; policy accept;
        udp dport {PORT} counter name seen
        ether type 0x88b5 counter name seen
    }}
}}
"""
SEND = f"""
import socket, sys
for version, source, target in [each.split(",") for each in sys.argv[1:]]:
    family = socket.AF_INET if version == "4" else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        # IP_FREEBIND and IPV6_TRANSPARENT need no address of the interface.
        sender.setsockopt(socket.SOL_IP, 19, 1) if version == "4" else sender.setsockopt(41, 75, 1)
        sender.bind((source, 0))
        for _ in range(3):
            sender.sendto(b"hello", (target, {PORT}))
"""
SEND_FRAMES = """
import socket, sys
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
    sender.bind(("eth0", 0))
    for target in sys.argv[1:]:
        head = bytes.fromhex(target.replace(":", "") + "020000000099" + "88b5")
        for _ in range(3):
            sender.send(head + bytes(60))
"""


def watch(victim: Container) -> None:
    victim.sandbox.run(["nft", "-f", "-"], COUNT)


def seen(victim: Container) -> int:
    """Return how many packets of the attacker have arrived."""
    shown = json.loads(victim.sandbox.run(["nft", "-j", "list", "counters"]))
    return sum(each["counter"]["packets"] for each in shown["nftables"] if "counter" in each)


def spoof(attacker: Container, victim: Container, sources: dict[str, str]) -> None:
    """Send from addresses that the attacker does not have; `sources` has addresses with their versions."""
    of_version = {"4": victim.of_family(4), "6": victim.of_family(6)}
    words = [f"{version},{source},{of_version[version]}" for source, version in sources.items()]
    attacker.sandbox.run(["sysctl", "-w", "net.ipv6.ip_nonlocal_bind=1"])
    attacker.sandbox.run(["python3", "-c", SEND, *words])


@pytest.mark.parametrize("keys", [{"isolate": True}, {"isolate": "strict"}, {"internal": True}], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_false_source_does_not_pass_for_another_network(
    host: Host, backend: str, keys: dict[str, Any]
) -> None:
    first, second = (Network(host, number, backend=backend, **keys) for number in (1, 2))
    attacker, victim, neighbour = first.attach(1), second.attach(1), second.attach(2)
    sources = {
        attacker.address: "4",
        neighbour.address: "4",
        str(second.net.gateway): "4",
        "198.51.100.9": "4",
        attacker.address6: "6",
        neighbour.address6: "6",
        str(second.net.gateway6): "6",
    }
    watch(victim)
    spoof(attacker, victim, sources)
    assert seen(victim) == 0
    # A neighbour's packets of the same kind do arrive.
    spoof(neighbour, victim, {neighbour.address: "4", neighbour.address6: "6"})
    assert seen(victim) == 6


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_icc_nothing_passes_on_the_bridge(host: Host, backend: str) -> None:
    """Frames of any kind, to any of the victim's addresses, with entries of the attacker's own for them."""
    network = Network(host, 1, backend=backend, icc=False)
    attacker, victim = network.attach(1), network.attach(2)
    [shown] = victim.sandbox.json(["ip", "-j", "addr", "show", "eth0"])
    local = next(each["local"] for each in shown["addr_info"] if each.get("scope") == "link")
    mac = shown["address"]
    run = attacker.sandbox.run
    for address in (victim.address, victim.address6, local):
        run(["ip", "neigh", "replace", address, "lladdr", mac, "dev", "eth0", "nud", "permanent"])
    watch(victim)
    spoof(attacker, victim, {attacker.address: "4", "198.51.100.9": "4", attacker.address6: "6"})
    run(["python3", "-c", SEND.replace("target, ", "target + '%eth0', "), f"6,::,{local}"])
    run(["python3", "-c", SEND_FRAMES, mac, "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01"])
    assert seen(victim) == 0
    network.call("DEL", attacker).must()
    network.call("DEL", victim).must()
    run(["python3", "-c", SEND_FRAMES, mac])
    assert seen(victim) == 3
