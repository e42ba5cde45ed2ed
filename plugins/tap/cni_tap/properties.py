"""The properties of an attachment: one list for CHECK and repair."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.interface import compare, single
from cni.kernel import link, tap
from cni.operations.properties import Property
from cni_tap import bridges

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.interface.compare import Attachment
    from cni.kernel.link import Link
    from cni_tap.conf import TapConf


def list_properties(conf: TapConf, of: Attachment) -> Iterator[Property]:
    """Yield all that ADD makes, in an order in which each can be restored after those before it."""

    def of_kind(own: Link) -> Iterator[Property]:
        yield compare.holds(tap.is_tap(own), f"Interface {own.name} is a tun device, not a tap device")
        settings = tap.describe(own)
        for key, shown, wanted in (
            ("multiQueue", settings.multi_queue, conf.multi_queue),
            ("owner", settings.owner, conf.owner),
            ("group", settings.group, conf.group),
        ):
            message = f"Interface {own.name} has {key} {_in_json(shown)}, not {_in_json(wanted)}"
            yield Property(key, shown, wanted, message)
        if conf.bridge:
            yield _of_bridge(conf, of, own)

    yield from single.properties(conf, of, tap.KIND, of_kind)


def _of_bridge(conf: TapConf, of: Attachment, own: Link) -> Property:
    master = bridges.find(conf, of.sides.inside)
    done = f"{own.name} of the container: made it a port of {conf.bridge}"
    fix = compare.send(of.sides.inside, done, link.set_master(own.name, own.index, master.index))
    message = f"Interface {own.name} is no port of bridge {conf.bridge} of the container"
    return Property(f"bridge of {own.name}", own.master, master.index, message, fix)


def _in_json(value: object) -> str:
    return "none" if value is None else str(value).lower()
