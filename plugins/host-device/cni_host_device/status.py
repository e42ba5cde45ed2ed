"""STATUS: can an ADD succeed now."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni import delegate
from cni.errors import CniError
from cni.interface import status as shared
from cni.kernel.rtnetlink import Netlink
from cni.operations.status import trial
from cni.state import attachments, files
from cni_host_device import devices

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.request import Request
    from cni_host_device.conf import HostDeviceConf


def status(conf: HostDeviceConf, request: Request) -> None:
    """Raise CniError 50 if there is no such device, unless a container of the network has it."""
    steps: list[Callable[[], object]] = [
        _try_namespace,
        partial(_try_device, conf),
        partial(files.check_writable, attachments.FOLDER),
    ]
    if conf.ipam.type:
        steps.append(partial(delegate.find, conf.ipam.type, request.path))
    shared.report(conf, request, steps, tuple)


def _try_namespace() -> None:
    with trial():
        pass  # ADD enters the namespace of the container.


def _try_device(conf: HostDeviceConf) -> None:
    try:
        with Netlink() as nl:
            devices.find(conf, nl)
    except CniError:
        if not attachments.list_stale(conf.plugin, conf.name, ()):
            raise
