"""The portmap plugin: ports of the container published on the host."""

from cni_portmap.plugin import PLUGIN

__all__ = ["PLUGIN"]
