"""The plugins of the network that tests use when they are about something else than one plugin.

`tests/support/subjects.py` puts any other plugin into this network.
"""

from __future__ import annotations

LOOPBACK, BRIDGE, IPAM, PORTMAP = "loopback", "bridge", "host-local", "portmap"
# The order of ADD. The bridge asks the IPAM plugin.
CHAIN = (LOOPBACK, BRIDGE, PORTMAP)
