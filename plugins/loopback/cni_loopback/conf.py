"""The configuration. Pure."""

from cni.conf import NetConf


class LoopbackConf(NetConf):
    """The keys of the specification; the plugin has no keys of its own."""
