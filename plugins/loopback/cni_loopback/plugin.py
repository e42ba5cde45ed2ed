"""The verbs of the loopback plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.conf import NetConf
from cni.errors import CniError, Code
from cni.netns import is_gone
from cni.plugin import Plugin
from cni_loopback import apply
from cni_loopback.plan import plan_result

if TYPE_CHECKING:
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
    """Raise CniError 104 unless lo is on."""
    if not apply.is_up(request.netns):
        raise CniError(Code.MISMATCH, "loopback interface is down", "switch it on with: ip link set lo up")


PLUGIN = Plugin("loopback", "lo up in the container", NetConf, add, delete, check)
