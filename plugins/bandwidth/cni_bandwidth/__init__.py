"""The bandwidth plugin: limits on what a container sends and receives."""

from cni.plugin import Plugin
from cni_bandwidth.conf import BandwidthConf

PLUGIN = Plugin(
    "bandwidth", "limits on what a container sends and receives", BandwidthConf, package="cni_bandwidth"
)
