"""The host-device plugin: a network device of the host, for as long as the container is attached."""

from cni.plugin import Plugin
from cni_host_device.conf import HostDeviceConf

PLUGIN = Plugin(
    "host-device", "a network device of the host", HostDeviceConf, package="cni_host_device", calls_ipam=True
)
