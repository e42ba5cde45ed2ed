"""STATUS: can an ADD succeed now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import CniError, Code, KernelError
from cni.kernel import link, vrf
from cni.operations.status import trial

if TYPE_CHECKING:
    from cni.request import Request
    from cni_vrf.conf import VrfConf


def status(_conf: VrfConf, _request: Request) -> None:
    """Raise CniError 50 if the kernel has no VRF: one is created in a new namespace."""
    with trial() as nl:
        try:
            link.create(nl, "could not create VRF", vrf.KIND, vrf.settings(1), link.identity("vrf", ""))
        except KernelError as error:
            raise CniError(Code.NOT_AVAILABLE, error.msg, "load the module: modprobe vrf") from error
