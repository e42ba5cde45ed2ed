"""The files of host-local: the folder of leases, and the host's resolv.conf."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.ipam.leases import Leases
from cni.result import Dns
from cni_host_local_ipam.plan import parse_resolv_conf

if TYPE_CHECKING:
    from cni_host_local_ipam.conf import HostLocalConf

_LARGEST_RESOLV_CONF_BYTES = 1 << 20


def open_leases(conf: HostLocalConf) -> Leases:
    """Return the leases of a network."""
    return Leases(Path(conf.folder), keeps_over_boot=conf.ipam.keep_over_boot)


def read_dns(path: str) -> Dns:
    """Return the settings of the file that `resolvConf` names; none for "". Raises CniError 5."""
    if not path:
        return Dns()
    try:
        content = _read_start(path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CniError(Code.IO_FAILURE, f"open {path}: {reason}", "ipam.resolvConf names it") from error
    return parse_resolv_conf(content.decode(errors="replace"))


def _read_start(path: str) -> bytes:
    # O_NONBLOCK: a FIFO without a writer is an empty file, not a wait without end.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return os.read(fd, _LARGEST_RESOLV_CONF_BYTES)
    finally:
        os.close(fd)
