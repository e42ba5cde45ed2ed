"""The ipvlan plugin: IP addresses of its own behind the MAC address of a link below."""

from cni.plugin import Plugin
from cni_ipvlan.conf import IpvlanConf

PLUGIN = Plugin(
    "ipvlan", "IP addresses of its own on a link below", IpvlanConf, package="cni_ipvlan", calls_ipam=True
)
