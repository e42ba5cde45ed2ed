"""The ptp plugin: a veth pair between the container and the host, which routes."""

from cni.plugin import Plugin
from cni_ptp.conf import PtpConf

PLUGIN = Plugin(
    "ptp", "a veth pair between the container and the host", PtpConf, package="cni_ptp", calls_ipam=True
)
