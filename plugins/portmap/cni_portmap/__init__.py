"""The portmap plugin: ports of the container published on the host."""

from cni.plugin import Plugin
from cni_portmap.conf import PortmapConf

PLUGIN = Plugin("portmap", "publishes ports of containers on the host", PortmapConf, package="cni_portmap")
