"""The properties of an attachment: one list for CHECK and repair."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.interface import compare
from cni.interface.plan import Layer3
from cni.kernel import link

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.interface.compare import Attachment
    from cni.operations.properties import Property
    from cni_host_device.conf import HostDeviceConf


def list_properties(conf: HostDeviceConf, of: Attachment) -> Iterator[Property]:
    """Yield all that ADD makes; nothing for a device that a program in user space drives."""
    if of.recorded.pci_id and not of.recorded.mac:
        return
    own = link.find(of.sides.inside, of.plan.ifname)
    yield from compare.of_container(of, own, own.kind if own else "")
    if own is None:
        return
    routes = compare.promised_routes(conf, of.result)
    yield from compare.of_layer3(of, Layer3(of.ips), routes, own, compare_metrics=False)
