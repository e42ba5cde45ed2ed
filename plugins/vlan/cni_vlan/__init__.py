"""The vlan plugin: a VLAN of a link below."""

from cni.plugin import Plugin
from cni_vlan.conf import VlanConf

PLUGIN = Plugin("vlan", "a VLAN of a link below", VlanConf, package="cni_vlan", calls_ipam=True)
