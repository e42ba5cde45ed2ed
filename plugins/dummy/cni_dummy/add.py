"""ADD: make the container's link and give it addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.interface import single
from cni.interface.pair import open_sides
from cni.interface.single import LinkSpec
from cni.kernel import dummy, link

if TYPE_CHECKING:
    from cni.request import Request
    from cni.result import Result
    from cni.undo import Undo
    from cni_dummy.conf import DummyConf


def add(conf: DummyConf, request: Request, undo: Undo) -> Result:
    """Make the link, its addresses and routes."""
    with open_sides(request.netns) as sides:
        return single.attach(conf, request, undo, sides, LinkSpec(dummy.KIND, mac=link.new_mac()))
