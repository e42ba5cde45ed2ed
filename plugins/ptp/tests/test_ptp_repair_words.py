"""The words of repair: they must not name a link of the container as one of the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.testing.network import Network

if TYPE_CHECKING:
    from cni.testing import Host


def test_repair_names_links_of_the_container_as_such(host: Host) -> None:
    routes = [{"dst": "0.0.0.0/0"}]
    net = Network(host, "ptp", ipam={"type": "host-local", "subnet": "10.1.0.0/24", "routes": routes})
    one = net.add("c1")
    mac = one.answer.json["interfaces"][1]["mac"]
    one.sandbox.run(["ip", "addr", "flush", "dev", "eth0"])
    one.sandbox.run(["ip", "link", "set", "eth0", "down", "address", "02:00:00:00:00:09"])
    repaired = net.repair(one).must()["repaired"]
    assert repaired == [
        f"eth0 of the container: set its MAC address to {mac}",
        "eth0 of the container: switched it on",
        "eth0 of the container: added 10.1.0.2/24",
        "eth0 of the container: added the route to 10.1.0.1/32",
        "eth0 of the container: added the route to 10.1.0.0/24",
        "eth0 of the container: added the route to 0.0.0.0/0",
    ]
