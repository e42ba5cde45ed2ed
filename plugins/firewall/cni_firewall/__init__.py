"""The firewall plugin: forwarded traffic of containers is admitted, networks are isolated."""

from cni.plugin import Plugin
from cni_firewall.conf import FirewallConf

PLUGIN = Plugin(
    "firewall",
    "admits forwarded traffic of containers and isolates networks",
    FirewallConf,
    package="cni_firewall",
)
