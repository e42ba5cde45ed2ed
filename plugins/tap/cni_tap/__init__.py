"""The tap plugin: a device by which a program in the container sends and receives frames."""

from cni.plugin import Plugin
from cni_tap.conf import TapConf

PLUGIN = Plugin("tap", "a tap device", TapConf, package="cni_tap", calls_ipam=True)
