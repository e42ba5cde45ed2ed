"""STATUS: whether an ADD could succeed."""

from cni.request import Request
from cni_static_ipam.add import add
from cni_static_ipam.conf import StaticConf


def status(conf: StaticConf, request: Request) -> None:
    """Raise CniError 7 if ADD would refuse the configuration."""
    add(conf, request)
