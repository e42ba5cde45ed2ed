"""STATUS: can an ADD succeed now."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni import delegate
from cni.interface import single
from cni.interface import status as shared
from cni.kernel import dummy
from cni.state import attachments, files

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.request import Request
    from cni_dummy.conf import DummyConf


def status(conf: DummyConf, request: Request) -> None:
    """Raise CniError 50 with every reason."""
    steps: list[Callable[[], object]] = [
        partial(single.try_create, dummy.KIND, b"", with_parent=False),
        partial(delegate.find, conf.ipam.type, request.path),
        partial(files.check_writable, attachments.FOLDER),
    ]
    shared.report(conf, request, steps, tuple)
