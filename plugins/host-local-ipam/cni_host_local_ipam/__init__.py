"""The host-local plugin: addresses out of ranges, noted on disk."""

from cni.plugin import Plugin
from cni_host_local_ipam.conf import HostLocalConf

PLUGIN = Plugin(
    "host-local", "addresses out of ranges, noted on disk", HostLocalConf, package="cni_host_local_ipam"
)
