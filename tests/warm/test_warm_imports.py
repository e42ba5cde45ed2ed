"""Plugins whose import harms the server."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from cni.testing import warm, why_no_namespaces
from cni.testing.executables import make_warm_bindir
from cni.warm import control
from tests.support.patience import wait_until
from tests.warm.conftest import ODD, WarmHost

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORKERS = 4


@contextmanager
def host_with(plugin: str, folder: Path, launcher: Path) -> Iterator[WarmHost]:
    """Yield a host on which the plugin "odd" is there and one more, imported with it."""
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    sys.path.insert(0, str(ODD))
    try:
        bindir = make_warm_bindir(folder, {"odd": "cni_odd", plugin: f"cni_{plugin}"}, launcher)
    finally:
        sys.path.remove(str(ODD))
    with WarmHost(bindir) as host:
        warm.set_up(host.place, workers=WORKERS)
        yield host


def test_workers_that_end_at_once_are_restarted_slowly(launcher: Path, tmp_path: Path) -> None:
    with host_with("ending", tmp_path, launcher) as host:
        host.odd()
        [server] = host.call(control.find)
        before = host.status()["workers_made"]
        host.run(["touch", "/run/ending"])
        for pid in control.children(server.pid):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: host.status()["workers_made"] > before)
        begin = time.monotonic()
        time.sleep(2)
        # Who asks gives no reason to try again.
        for _ in range(10):
            made = host.status()["workers_made"] - before
        # The pool has as many workers, and tries again after a second.
        assert 1 <= made <= WORKERS * (2 + time.monotonic() - begin)
        host.await_log("was killed by signal 9")
        assert host.odd(env={"PYCNI_WARM_ACCEPT_S": "1"}).ok
        host.run(["rm", "/run/ending"])
        # A call has waited in vain: for some seconds others do not wait.
        wait_until(lambda: host.facts()["parent"] == str(server.pid))


def test_a_thread_that_an_import_starts_is_logged(launcher: Path, tmp_path: Path) -> None:
    with host_with("threaded", tmp_path, launcher) as host:
        assert host.odd().ok
        assert "importing the plugins started a thread" in host.log()
        assert host.status()["requests"] == 1


def test_the_garbage_collector_ignores_imported_objects(warm_host: WarmHost) -> None:
    assert int(warm_host.facts()["frozen"]) > 10_000
