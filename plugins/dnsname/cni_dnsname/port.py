"""Find the programs that hold port 53 of a gateway."""

from __future__ import annotations

from ipaddress import ip_address

from cni.firewall.intents import PortMapping
from cni.hostports import listeners

# As processes of the server are called.
_SERVER = "pycni-"


def list_others(gateway: str) -> list[str]:
    """List other programs at port 53 of an address. The server listens for both protocols or none."""
    address = ip_address(gateway)
    mappings = [PortMapping(each, 53, 53, address) for each in ("udp", "tcp")]
    found = listeners.find(mappings, [address.version])
    return [str(each) for each in found if _SERVER not in each.process]
