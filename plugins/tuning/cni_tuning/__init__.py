"""The tuning plugin: sysctls of the container's namespace, and attributes of its interface."""

from cni.plugin import Plugin
from cni_tuning.conf import TuningConf

PLUGIN = Plugin(
    "tuning", "sysctls of the container, and attributes of its interface", TuningConf, package="cni_tuning"
)
