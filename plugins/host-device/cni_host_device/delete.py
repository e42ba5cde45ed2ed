"""DEL: give the device back to the host, and release its addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni import delegate
from cni.errors import Code, ErrorList
from cni.interface import ipam
from cni.state import attachments
from cni_host_device import moves

if TYPE_CHECKING:
    from cni.request import Request
    from cni_host_device.conf import HostDeviceConf


def delete(conf: HostDeviceConf, request: Request) -> None:
    """Succeed without the device and without the namespace. All steps are tried; raise the first error."""
    key = moves.key_of(conf, request)
    errors = ErrorList()
    errors.attempt(ipam.release_through_link, conf, request)
    if attachments.load(key):
        errors.attempt(moves.give_back_by_record, key, request.netns)
    else:
        errors.attempt(moves.give_back_unrecorded, conf, request.netns, request.ifname)
        # A killed ADD may have left a record that is not complete.
        errors.attempt(attachments.drop, key)
    is_unreached = any(each.code == Code.INVALID_NETNS for each in errors.errors)
    if conf.ipam.type and not is_unreached:
        errors.attempt(delegate.delete, conf.ipam.type, request)
    errors.raise_any()
