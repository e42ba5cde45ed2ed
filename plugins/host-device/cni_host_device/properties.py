"""The properties of an attachment: one list for CHECK and repair."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.interface import compare
from cni.interface.plan import Layer3
from cni.kernel import link

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.interface.compare import Attachment
    from cni.operations.properties import Property
    from cni_host_device.conf import HostDeviceConf


def require(of: Attachment) -> None:
    """Raise CniError 104 if the device is gone: only an ADD brings it."""
    if link.find(of.sides.inside, of.plan.ifname) is None and not _is_in_user_space(of):
        raise CniError(
            Code.MISMATCH,
            f"the device {of.plan.ifname} in {of.plan.netns} is gone and cannot be repaired",
            "attach the container again: DEL, then ADD",
        )


def list_properties(conf: HostDeviceConf, of: Attachment) -> Iterator[Property]:
    """Yield all that ADD makes; nothing for a device that a program in user space drives."""
    if _is_in_user_space(of):
        return
    own = link.find(of.sides.inside, of.plan.ifname)
    yield from compare.of_container(of, own, own.kind if own else "")
    if own is None:
        return
    routes = compare.promised_routes(conf, of.result)
    yield from compare.of_layer3(of, Layer3(of.ips), routes, own, compare_metrics=False)


def _is_in_user_space(of: Attachment) -> bool:
    return bool(of.recorded.pci_id) and not of.recorded.mac
