"""The plugins of the network that tests use when they are about something else than one plugin.

Tests name these plugins by the constants, for what each does in the network. `tests/support/subjects.py` puts
any other plugin into this network.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import GO
from plugin_table import declared, packages

if TYPE_CHECKING:
    from cni.plugin import Plugin

LOOPBACK, INTERFACE, IPAM, PORTS = "loopback", "bridge", "host-local", "portmap"
# The order of ADD. The interface plugin asks the IPAM plugin.
CHAIN = (LOOPBACK, INTERFACE, PORTS)

_PACKAGES = packages(declared())

needs_go = pytest.mark.skipif(not (GO / INTERFACE).exists(), reason=f"there are no Go plugins in {GO}")


def load(name: str) -> Plugin[Any]:
    """Return the object of a plugin."""
    plugin: Plugin[Any] = import_module(_PACKAGES[name]).PLUGIN
    return plugin


def has_helper(name: str) -> bool:
    """Return whether a plugin has a helper, a process that outlives its calls."""
    return find_spec(f"{packages(declared())[name]}.serve") is not None


def ports(**keys: Any) -> dict[str, Any]:
    """Return the configuration that publishes ports, as in a list: the runtime adds which ones."""
    return {"type": PORTS, "capabilities": {"portMappings": True}, **keys}
