"""The loopback plugin: lo up in the container."""

from cni_loopback.plugin import PLUGIN

__all__ = ["PLUGIN"]
