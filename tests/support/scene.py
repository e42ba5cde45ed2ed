"""The plugins of the network that tests use when they are about something else than one plugin.

`tests/support/subjects.py` puts any other plugin into this network.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from plugin_table import declared, packages

if TYPE_CHECKING:
    from cni.plugin import Plugin

LOOPBACK, BRIDGE, IPAM, PORTMAP = "loopback", "bridge", "host-local", "portmap"
# The order of ADD. The bridge asks the IPAM plugin.
CHAIN = (LOOPBACK, BRIDGE, PORTMAP)


def load(name: str) -> Plugin[Any]:
    """Return the object of a plugin."""
    plugin: Plugin[Any] = import_module(packages(declared())[name]).PLUGIN
    return plugin
