"""A signal that arrives on the way into or out of a namespace: the undo runs in the host's."""

from __future__ import annotations

import gc
import os
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from cni import stops
from cni.errors import CniError
from cni.kernel import netns
from cni.testing.place import fork

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.testing import Host

STOPS = 1500


@contextmanager
def storm() -> Iterator[None]:
    """Send SIGTERM to this process about every 0.2 ms."""
    target, child = os.getpid(), fork()
    if child == 0:
        try:
            while os.getppid() == target:
                os.kill(target, signal.SIGTERM)
                time.sleep(0.0001)
        finally:
            os._exit(0)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def come_and_go(ns: netns.Netns) -> None:
    """Enter a namespace and leave it until a signal stops this.

    The interpreter drops an exception that a handler raises in a finalizer, so the loop asks as well.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, stops.SIGNALS)
    while True:
        with ns.entered():
            pass
        if stop := stops.requested():
            raise stop


def test_a_signal_never_leaves_a_call_in_the_containers_namespace(host: Host) -> None:
    path = host.sandbox("c1").path

    def run() -> None:
        with netns.own() as home, netns.open_netns(path) as ns:
            # As in a cold call. A callback of the collector swallows what a handler raises, and the test
            # runner may have such callbacks.
            gc.disable()
            signal.pthread_sigmask(signal.SIG_BLOCK, stops.SIGNALS)
            stops.listen()
            with storm():
                for _ in range(STOPS):
                    with pytest.raises(CniError, match="interrupted by SIGTERM"):
                        come_and_go(ns)
                    with netns.own() as here:
                        assert here.inode == home.inode
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                    stops.forget()
                    signal.pthread_sigmask(signal.SIG_BLOCK, stops.SIGNALS)
                    stops.listen()

    host.call(run)
