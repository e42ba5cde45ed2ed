"""STATUS: whether the server can listen, and whether it answers for the containers that there are."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from cni.dns import records
from cni.dns.client import HELPER
from cni.errors import CniError, Code
from cni.kernel import netns
from cni.kernel.dbus import find_bus
from cni.operations.status import Reasons, trial
from cni.service.client import FOLDER
from cni.state import files
from cni_dnsname import admission, publish

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.request import Request
    from cni_dnsname.conf import DnsnameConf

# One name for each gateway shows whether the server answers there.
_NOT_RUNNING = "the DNS server does not run; the next ADD or pycni repair starts it"
_SILENT = "the DNS server does not answer at"
# STATUS looks several times.
_HEARD_WITHIN_S = 0.5
_LOST = "containers have lost rules that accept what they ask the DNS server"
_UNHEARD = "a filter of the host drops what containers ask the DNS server at"


def status(conf: DnsnameConf, request: Request) -> None:
    """Raise CniError 50 if no server could listen here, 51 if names of living containers are not answered."""
    reasons = Reasons()
    reasons.attempt(files.check_writable, records.FOLDER)
    reasons.attempt(files.check_writable, FOLDER)
    reasons.attempt(_listen)
    reasons.limit(lambda: _list_silent(conf.name, find_bus(request.env)))
    reasons.raise_any()


def _listen() -> None:
    with trial():
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
                bound.bind(("127.0.0.1", 53))
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise CniError(
                Code.NOT_AVAILABLE,
                f"could not listen at port 53: {reason}",
                "Call the plugin with CAP_NET_BIND_SERVICE.",
            ) from error


def _list_silent(network: str, bus: str) -> Iterator[tuple[str, str]]:
    """Yield the gateways of the network at which the server does not answer, and missing rules."""
    own = HELPER.key
    living = [
        each
        for each in records.list_all()
        if each.key.network == network and each.owner == own and not netns.is_gone(each.netns)
    ]
    if not living:
        return
    if not HELPER.is_running():
        yield _NOT_RUNNING, ""
        return
    newest = living[-1]
    silent = list(publish.unanswered(newest))
    yield from ((_SILENT, each) for each in silent)
    try:
        lost = admission.differences(newest, bus)
    except CniError as error:
        if error.code != Code.FIREWALL:
            raise
        lost = []
    yield from ((_LOST, each) for each in lost)
    if not silent and not lost and admission.list_filters():
        yield from ((_UNHEARD, each) for each in publish.unheard(newest, _HEARD_WITHIN_S))
