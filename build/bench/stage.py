"""A side on a separate host: its calls, and the clean-up of the remaining objects."""

from __future__ import annotations

import json
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from bench.calls import Call
from bench.interrupts import INTERRUPTS, SIGNALS
from cni.testing import Host, Sandbox, warm
from cni.testing.place import BARE_ENV
from cni.warm import control

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bench.sides import Side

P = ParamSpec("P")
T = TypeVar("T")

_BATCH_WITHIN_S = 300


class Stage:
    """A host with one side's plugins on it; a context that ends the host with all that runs there."""

    def __init__(self, side: Side) -> None:
        self.side = side
        with _deaf_to_signals():
            self.host = Host(side.bindir)
        # Called on the host at its end.
        self.endings: list[Callable[[], None]] = []
        if side.settings:
            warm.set_up(self.host.place, **side.settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self.endings:
            self.host.call(each)
        self.host.close()

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function on the host, in a child. Return its result or raise its exception."""
        return INTERRUPTS.wait_for(self.host.call, function, *args, **kwargs)

    def processes(self) -> list[int]:
        """Return the process of this host's warm server, then its workers; none without a server."""
        found = self.call(control.find)
        return [found[0].pid, *control.children(found[0].pid)] if found else []

    def ensure_namespaces(self, names: Sequence[str]) -> None:
        """Make the containers' network namespaces, all by one process."""
        self._netns("add", names)

    def sandbox(self, name: str) -> Sandbox:
        """Return an existing sandbox."""
        return Sandbox(self.host, name)

    def remove_namespaces(self, names: Sequence[str]) -> None:
        """Remove the containers' namespaces. The kernel continues the removal for a while."""
        self._netns("delete", names)

    def _netns(self, verb: str, names: Sequence[str]) -> None:
        lines = "".join(f"netns {verb} {name}\n" for name in names)
        self.host.run(["ip", "-batch", "-"], lines, timeout_s=_BATCH_WITHIN_S)


@contextmanager
def _deaf_to_signals() -> Iterator[None]:
    """Start processes that a signal to all of us does not end, so that we can put things in order first."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def make_call(
    side: Side, plugin: str, verb: str, conf: Mapping[str, Any], container: Mapping[str, str] | None = None
) -> Call:
    """Return a call; `container` is the environment that names its container, if any."""
    env = {**BARE_ENV, **side.env, "CNI_COMMAND": verb, "CNI_PATH": str(side.bindir), **(container or {})}
    return Call(str(side.bindir / plugin), env, json.dumps(conf).encode())
