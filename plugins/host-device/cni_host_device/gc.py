"""GC: find the devices of attachments that are no longer valid."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.operations.garbage import Removal, Stale
from cni.state import attachments
from cni_host_device import moves

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.operations.garbage import Finder
    from cni.request import Attachment, Request
    from cni_host_device.conf import HostDeviceConf


def finders(conf: HostDeviceConf, request: Request) -> list[Finder]:
    """Return the finder of devices and records."""
    return [partial(_devices, conf, request.required_valid())]


def _devices(conf: HostDeviceConf, valid: frozenset[Attachment]) -> Iterator[Removal]:
    for record in attachments.list_stale(conf.plugin, conf.name, valid):
        name = str(record.values.get("name", "")) or record.path
        thing = Stale("device", name, conf.name, record.container_id, record.ifname)
        yield Removal((thing,), partial(_collect, conf, record))


def _collect(conf: HostDeviceConf, record: attachments.Record) -> None:
    if record.container_id:
        key = attachments.Key(conf.plugin, conf.name, record.container_id, record.ifname)
        moves.give_back_by_record(key, record.netns)
    attachments.remove(record)
