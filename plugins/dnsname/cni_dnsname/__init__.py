"""The dnsname plugin: containers find each other by name."""

from cni.plugin import Plugin
from cni_dnsname.conf import DnsnameConf

PLUGIN = Plugin("dnsname", "containers find each other by name", DnsnameConf, package="cni_dnsname")
