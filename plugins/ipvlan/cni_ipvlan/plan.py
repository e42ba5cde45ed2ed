"""Which link is the master, from configuration and result; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import CniError, Code

if TYPE_CHECKING:
    from cni.result import Result
    from cni_ipvlan.conf import IpvlanConf


def choose_master(conf: IpvlanConf, before: Result | None) -> IpvlanConf:
    """Return the configuration with the master that the plugin before has made, if none is configured.

    Raise CniError 7 if that plugin has made several links.
    """
    if conf.master or before is None or not before.interfaces:
        return conf
    if len(before.interfaces) != 1 or not before.interfaces[0].name:
        raise CniError(
            Code.INVALID_CONFIG,
            "chained master failure. PrevResult lacks a single named interface",
            'set "master": the plugin before this one has made several links',
        )
    return conf.model_copy(update={"master": before.interfaces[0].name})
