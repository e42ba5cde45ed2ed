"""STATUS: can an ADD succeed now."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni import delegate
from cni.interface import status as shared
from cni.kernel import tap
from cni.operations.status import trial
from cni.state import attachments, files

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.request import Request
    from cni_tap.conf import TapConf


def status(conf: TapConf, request: Request) -> None:
    """Raise CniError 50 with every reason."""
    steps: list[Callable[[], object]] = [
        partial(_try_device, conf),
        partial(files.check_writable, attachments.FOLDER),
    ]
    if conf.ipam.type:
        steps.append(partial(delegate.find, conf.ipam.type, request.path))
    shared.report(conf, request, steps, tuple)


def _try_device(conf: TapConf) -> None:
    if conf.selinux_context:
        tap.require_selinux(conf.selinux_context)
    with trial():
        tap.try_create()
