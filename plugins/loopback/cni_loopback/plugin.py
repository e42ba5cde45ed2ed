"""The verbs of the loopback plugin."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.conf import NetConf
from cni.errors import CniError, Code
from cni.kernel.netns import is_gone
from cni.plugin import Plugin
from cni_loopback import apply
from cni_loopback.plan import list_addresses, plan_result

if TYPE_CHECKING:
    from cni.operations.repair import Repaired
    from cni.request import Request
    from cni.result import Result
    from cni.undo import Undo


def add(_conf: NetConf, request: Request, undo: Undo) -> Result:
    """Switch lo on; in a chain the result so far stays as it is."""
    addresses = apply.ensure_up(request.netns, undo)
    return request.prev_result or plan_result(request.netns, addresses)


def delete(_conf: NetConf, request: Request) -> None:
    """Switch lo off, if there is a namespace left."""
    if not is_gone(request.netns):
        apply.ensure_down(request.netns)


def check(_conf: NetConf, request: Request) -> None:
    """Raise CniError 104 unless lo is on and has the addresses that the result says."""
    found = apply.list_differences(request.netns, list_addresses(request.prev_result))
    if found:
        details = ["switch it on with: ip link set lo up", *found[1:]]
        raise CniError(Code.MISMATCH, found[0], "; ".join(details))


def status(_conf: NetConf, _request: Request) -> None:
    """Raise CniError 50 unless lo of a namespace can be switched on, which is tried in a new one."""
    from cni.errors import KernelError
    from cni.operations.status import trial

    with trial() as nl:
        try:
            apply.switch_on(nl)
        except KernelError as error:
            raise CniError(Code.NOT_AVAILABLE, error.msg, error.details) from error


def repair(_conf: NetConf, request: Request) -> Repaired:
    """Switch lo on again."""
    from cni.operations.repair import Repaired

    done = Repaired()
    if apply.list_differences(request.netns, ()):
        done.attempt(partial(_switch_on, request.netns))
    return done


def _switch_on(netns: str, undo: Undo) -> str:
    apply.ensure_up(netns, undo)
    return "switched lo on"


PLUGIN = Plugin(
    "loopback", "lo up in the container", NetConf, add, delete, check, status=status, repair=repair
)
