"""The static plugin: addresses that the configuration or the runtime names. It keeps nothing to DEL or GC."""

from cni.plugin import Plugin
from cni_static_ipam.conf import StaticConf

PLUGIN = Plugin("static", "addresses that the configuration names", StaticConf, package="cni_static_ipam")
