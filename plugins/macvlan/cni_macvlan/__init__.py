"""The macvlan plugin: a link with a MAC address of its own on the network of a link below."""

from cni.plugin import Plugin
from cni_macvlan.conf import MacvlanConf

PLUGIN = Plugin(
    "macvlan", "a MAC address of its own on a link below", MacvlanConf, package="cni_macvlan", calls_ipam=True
)
