"""ADD: return the addresses; nothing is changed."""

from cni.errors import CniError, Code
from cni.ipam.rules import check_families
from cni.request import Request
from cni.result import Result
from cni.undo import Undo
from cni_static_ipam.conf import StaticConf


def add(conf: StaticConf, request: Request, _undo: Undo | None = None) -> Result:
    """Return addresses, routes and DNS settings. Raise CniError 4 if CNI_ARGS are malformed."""
    try:
        ips = conf.list_ips(request.known_args("IP", "GATEWAY"))
    except ValueError as error:
        raise CniError(Code.INVALID_ENVIRONMENT, str(error), "Correct IP and GATEWAY in CNI_ARGS.") from error
    check_families((each.address.version for each in ips), request.version)
    return Result((), ips, tuple(each.to_route() for each in conf.ipam.routes), conf.ipam.dns.to_dns())
