"""ADD: make the container's device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.interface import single
from cni.interface.pair import open_sides
from cni.interface.single import LinkSpec
from cni.kernel import tap
from cni.kernel.tap import Settings
from cni_tap import bridges

if TYPE_CHECKING:
    from cni.request import Request
    from cni.result import Result
    from cni.undo import Undo
    from cni_tap.conf import TapConf


def add(conf: TapConf, request: Request, undo: Undo) -> Result:
    """Make the device, its addresses and routes."""
    mac = conf.mac_from(request.known_args("MAC"), conf.mac, f"failed to create {tap.NOUN}")
    with open_sides(request.netns) as sides:
        master = bridges.find(conf, sides.inside).index if conf.bridge else 0
        label = conf.selinux_context
        settings = Settings(conf.multi_queue, conf.owner, conf.group, mac, conf.mtu, label)

        def make(name: str) -> bool:
            return tap.create(sides.inside, sides.ns, name, settings)

        spec = LinkSpec(tap.KIND, master=master, make=make, noun=tap.NOUN)
        return single.attach(conf, request, undo, sides, spec)
