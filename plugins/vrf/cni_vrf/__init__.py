"""The vrf plugin: the container's interface becomes part of a VRF."""

from cni.plugin import Plugin
from cni_vrf.conf import VrfConf

PLUGIN = Plugin("vrf", "an interface in a VRF", VrfConf, package="cni_vrf")
