"""The bridge plugin: a veth pair between the container and a bridge on the host."""

from cni.plugin import Plugin
from cni_bridge.conf import BridgeConf

PLUGIN = Plugin(
    "bridge",
    "a veth pair between the container and a bridge",
    BridgeConf,
    package="cni_bridge",
    calls_ipam=True,
)
