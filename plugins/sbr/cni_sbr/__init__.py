"""The sbr plugin: what a container sends from an interface's address leaves by that interface."""

from cni.plugin import Plugin
from cni_sbr.conf import SbrConf

PLUGIN = Plugin("sbr", "routing by source address", SbrConf, package="cni_sbr")
