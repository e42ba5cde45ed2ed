"""DEL: release the addresses of an attachment."""

from cni.errors import ErrorList
from cni.request import Request
from cni_host_local_ipam.conf import HostLocalConf
from cni_host_local_ipam.files import open_leases
from cni_host_local_ipam.plan import read_args


def delete(conf: HostLocalConf, request: Request) -> None:
    """Release all that the attachment holds; the ranges may be others than at ADD."""
    read_args(request)
    leases = open_leases(conf)
    if not leases.exists():
        return
    # The addresses of prevResult are tried first.
    likely = [each.address.ip for each in request.prev_result.ips] if request.prev_result else []
    errors = ErrorList()
    with leases.locked():
        for lease in leases.list_held_by(request.attachment, likely):
            errors.attempt(leases.remove, lease)
        errors.attempt(leases.remove_unfinished)
    errors.raise_any()
