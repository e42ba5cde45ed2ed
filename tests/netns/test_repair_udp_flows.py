"""UDP flows that came while the firewall was empty reach their containers after a repair of many."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.netns.attached_world import World
from tests.support.patience import LONG_S

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")

NAMES = ("c1", "c2", "c3")
FIRST_PORT, SOURCE_PORT = 8080, 40_000
# Without a rule that needs it the kernel tracks nothing.
TRACKING = """
table inet tracking {
    chain input { type filter hook prerouting priority 0; ct state new accept; }
}
"""


def send(address: str, port: int, timeout_s: float) -> bool:
    """Send a datagram of one flow. Return whether it was answered within a time; 0 waits for none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("", SOURCE_PORT))
        client.settimeout(timeout_s or None)
        # Not connected: the host's refusal is no error.
        client.sendto(b"x", (address, port))
        return bool(timeout_s and client.recvfrom(100)[0])


def test_flows_are_led_to_their_containers_again(host: Host, tmp_path: Path) -> None:
    world = World(host, tmp_path)
    outside = host.outside
    ports = {name: FIRST_PORT + number for number, name in enumerate(NAMES)}
    for name, port in ports.items():
        world.attach(name, (port, "udp"))
    host.run(["nft", "-f", "-"], f"flush ruleset\n{TRACKING}")
    for port in ports.values():
        outside.sandbox.call(send, outside.host_address, port, 0)
    world.ok("repair")
    for name, port in ports.items():
        with world.sandboxes[name].serve(80, "udp"):
            assert outside.sandbox.call(send, outside.host_address, port, LONG_S)
