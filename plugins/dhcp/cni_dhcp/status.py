"""STATUS: whether packet sockets work, and whether the helper renews what is leased."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.operations.status import Reasons
from cni_dhcp import records

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.request import Request
    from cni_dhcp.conf import DhcpConf


def status(conf: DhcpConf, _request: Request) -> None:
    """Raise CniError 50 if no packet socket can be opened, 51 if leases are not renewed."""
    reasons = Reasons()
    reasons.attempt(_open_socket)
    reasons.limit(lambda: _list_unattended(conf.name))
    reasons.raise_any()


def _open_socket() -> None:
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0).close()
    except OSError as error:
        raise CniError(
            Code.NOT_AVAILABLE,
            f"could not open a packet socket: {(error.strerror or str(error)).lower()}",
            "Call the plugin with CAP_NET_RAW.",
        ) from error


def _list_unattended(network: str) -> Iterator[tuple[str, str]]:
    """Yield the leases of living containers that no helper renews."""
    leased = [
        f"{lease.address} of {key.container_id}"
        for key, record, lease in records.list_leases()
        if key.network == network and lease.expires_s is not None and not records.is_gone(record)
    ]
    if leased and not records.HELPER.is_running():
        sentence = "the helper that renews leases does not run; the next ADD or CHECK starts it"
        yield from ((sentence, each) for each in leased)
