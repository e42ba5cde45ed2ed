"""The dummy plugin: a link with addresses that leads nowhere."""

from cni.plugin import Plugin
from cni_dummy.conf import DummyConf

PLUGIN = Plugin(
    "dummy", "a link with addresses that leads nowhere", DummyConf, package="cni_dummy", calls_ipam=True
)
