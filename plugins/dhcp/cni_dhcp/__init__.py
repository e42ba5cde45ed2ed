"""The dhcp plugin: an address from a DHCP server of the network, renewed by a helper."""

from cni.plugin import Plugin
from cni_dhcp.conf import DhcpConf

PLUGIN = Plugin("dhcp", "addresses from a DHCP server", DhcpConf, package="cni_dhcp")
