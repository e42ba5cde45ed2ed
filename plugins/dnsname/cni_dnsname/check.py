"""CHECK: ask the server for the container's name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.operations import properties
from cni_dnsname.properties import list_properties

if TYPE_CHECKING:
    from cni.request import Request
    from cni_dnsname.conf import DnsnameConf


def check(conf: DnsnameConf, request: Request) -> None:
    """Raise CniError 104 if the names are not those of ADD, or the server does not answer them."""
    properties.check(list_properties(conf, request))
