"""A chained plugin behind an interface plugin, on a host whose plugins can be cut short at any point."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import Host, warm, why_no_namespaces
from cni.testing.faults import TELL, Fault, list_met
from cni.testing.network import Network

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cni.testing import Answer


class ChainedPlace:
    """A container with an interface, and the configuration of a chained plugin for it."""

    def __init__(self, host: Host, conf: dict[str, Any]) -> None:
        self.host = host
        attached = Network(host).add("c1")
        self.sandbox = attached.sandbox
        self.end = attached.host_end
        usual = {"cniVersion": "1.1.0", "name": "net1", "prevResult": attached.answer.json}
        self.conf = usual | conf

    def call(self, verb: str, fault: Fault | None = None) -> Answer:
        """Call the plugin, and cut the call short at the point of the fault."""
        env = fault.env if fault else {}
        return self.host.plugin(self.conf["type"], verb, self.conf, netns=self.sandbox, env=env)

    def collect(self) -> None:
        """Call GC with no valid attachment."""
        keys: dict[str, Any] = {"cni.dev/valid-attachments": []}
        self.host.plugin(self.conf["type"], "GC", self.conf | keys, container_id="", ifname="").must()

    def every_point(self, verb: str, action: str) -> list[Fault]:
        """Return the points of a call, each as often as it is reached. The call is made for that."""
        met = [each.split(" ") for each in list_met(self.call(verb, Fault(TELL, "")))]
        return [Fault(action, point, int(number)) for point, number in met]

    def list_faults(self, verb: str, action: str) -> list[Fault]:
        """Return the points of a call, each the first and the last time. The call is made for that."""
        every = self.every_point(verb, action)
        last = {each.point: each.number for each in every}
        return [each for each in every if each.number in {1, last[each.point]}]


@contextmanager
def chained_place(bindir: Path, conf: dict[str, Any]) -> Iterator[ChainedPlace]:
    """Yield the place on a host with a warm server of one worker, with the plugins of `bindir`."""
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    with Host(bindir) as host:
        warm.set_up(host.place, workers=1)
        yield ChainedPlace(host, conf)
