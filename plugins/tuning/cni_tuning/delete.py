"""DEL: restore the values before ADD."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import CniError
from cni.interface.conf import parse_mac
from cni.kernel import link
from cni.state import attachments, files
from cni_tuning import backup

if TYPE_CHECKING:
    from cni.interface.pair import Sides
    from cni.request import Request
    from cni_tuning.conf import TuningConf


def delete(conf: TuningConf, request: Request) -> None:
    """Restore what this plugin, or the Go plugin, has saved; drop both also when the namespace is gone."""
    key = backup.key_of(conf.name, request.attachment)
    record = attachments.load(key)
    path = backup.go_file(conf, request.attachment)
    of_go = backup.read_go_file(path)
    with backup.open_if_there(request.netns if record or of_go else "") as sides:
        if sides and record:
            backup.restore_record(record, sides)
        if sides and of_go and _is_of_result(sides, request):
            backup.restore(of_go, sides, request.ifname)
    attachments.drop(key)
    if of_go:
        files.remove(path)


def _is_of_result(sides: Sides, request: Request) -> bool:
    """Return whether the interface has the MAC address of the result, as far as there is one.

    A file of the Go plugin names no namespace, and by now another container may have the path.
    """
    inside = link.find(sides.inside, request.ifname)
    recorded = request.prev_result.container_interface(request.ifname) if request.prev_result else None
    if inside is None or recorded is None or not recorded.mac:
        return True
    try:
        return parse_mac(recorded.mac) == inside.mac
    except CniError:
        return True
