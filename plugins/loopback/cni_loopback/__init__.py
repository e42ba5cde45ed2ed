"""The loopback plugin: lo up in the container."""

from cni.plugin import Plugin
from cni_loopback.conf import LoopbackConf

PLUGIN = Plugin("loopback", "lo up in the container", LoopbackConf, package="cni_loopback")
