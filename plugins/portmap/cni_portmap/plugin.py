"""The verbs of the portmap plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.log import note
from cni.plugin import Plugin
from cni.request import Verb
from cni_portmap import apply
from cni_portmap.conf import PortmapConf
from cni_portmap.plan import (
    find_targets,
    list_host_ends,
    plan_forward,
    plan_mappings,
    plan_notes,
    plan_owner,
)

if TYPE_CHECKING:
    from cni.operations.garbage import Stale
    from cni.operations.repair import Repaired
    from cni.request import Request
    from cni.result import Result
    from cni.undo import Undo


def add(conf: PortmapConf, request: Request, undo: Undo) -> Result:
    """Publish the ports; the result so far is passed on as it is."""
    if request.prev_result is None:
        raise CniError(
            Code.INVALID_CONFIG,
            "must be called as chained plugin",
            "list portmap behind the plugin that makes the container's interface",
        )
    for line in plan_notes(plan_mappings(conf), find_targets(request.prev_result, request.ifname)):
        note(line)
    intent = plan_forward(conf, request, request.prev_result)
    if intent:
        place = apply.Place(request.netns, list_host_ends(request.prev_result))
        apply.ensure_published(intent, conf.needed_backend, place, undo)
        apply.note_listeners(intent)
    return request.prev_result


def delete(conf: PortmapConf, request: Request) -> None:
    """Take the ports back; nothing but the network's name and the container ID needs to be known."""
    apply.remove_published(plan_owner(conf, request), plan_mappings(conf))


def check(conf: PortmapConf, request: Request) -> None:
    """Compare rules with what ADD makes."""
    if request.prev_result is None:
        raise CniError(Code.INVALID_CONFIG, "Required prevResult missing", "CHECK needs the result of ADD")
    intent = plan_forward(conf, request, request.prev_result)
    if intent is None:
        return
    from cni_portmap.check import check as compare

    brief = request.verb is Verb.CHECK_ANY
    compare(conf, request.netns, intent, list_host_ends(request.prev_result), brief=brief)


def gc(conf: PortmapConf, request: Request) -> None:
    """Take back the ports of attachments that are no longer valid; without a list of valid ones, none."""
    from cni.operations import garbage
    from cni_portmap import collect

    if request.valid_attachments is None:
        note("portmap: gc was given no list of valid attachments, nothing is removed")
    garbage.collect("portmap", collect.finders(conf.name, request.valid_attachments))


def plan_gc(conf: PortmapConf, request: Request) -> list[Stale]:
    """Tell what `gc` would remove."""
    from cni.operations import garbage
    from cni_portmap import collect

    return garbage.plan(collect.finders(conf.name, request.valid_attachments))


def status(conf: PortmapConf, _request: Request) -> None:
    """Tell whether ports can be published, and those that are lead somewhere. Raises CniError 50, 51."""
    from cni_portmap.status import status as look

    look(conf)


def repair(conf: PortmapConf, request: Request) -> Repaired:
    """Publish again what CHECK would miss."""
    from cni.operations.repair import Repaired
    from cni_portmap.repair import repair as mend

    result = request.required_prev_result()
    intent = plan_forward(conf, request, result)
    place = apply.Place(request.netns, list_host_ends(result))
    return mend(conf, place, intent) if intent else Repaired()


PLUGIN = Plugin(
    name="portmap",
    about="publishes ports of containers on the host",
    conf=PortmapConf,
    add=add,
    delete=delete,
    check=check,
    gc=gc,
    status=status,
    plan_gc=plan_gc,
    repair=repair,
)
