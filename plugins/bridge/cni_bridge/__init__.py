"""The bridge plugin: a veth pair between the container and a bridge on the host."""

from cni_bridge.plugin import PLUGIN

__all__ = ["PLUGIN"]
