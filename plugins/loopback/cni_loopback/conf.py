"""The configuration of loopback. Pure."""

from cni.conf import NetConf


class LoopbackConf(NetConf):
    """The keys of the specification; loopback has no keys of its own."""
