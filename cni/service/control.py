"""Find and stop the helpers of this machine, and report what each does."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import signal
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from cni.errors import CniError, Code
from cni.service import status
from cni.service.client import FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.service.client import Helper

_TIMEOUT_S = 5
_PAUSE_S = 0.01


class Running(NamedTuple):
    """A helper that runs: its name, its status file and the process of its guard."""

    name: str
    path: str
    pid: int


def list_helpers() -> dict[str, Helper]:
    """Return the helpers of this installation by name: every package `cni_*` whose module `serve` has one."""
    packages = sorted(each.name for each in pkgutil.iter_modules() if each.name.startswith("cni_"))
    names = [f"{each}.serve" for each in packages]
    modules: list[Any] = [importlib.import_module(each) for each in names if importlib.util.find_spec(each)]
    return {each.HELPER.name: each.HELPER for each in modules}


def find() -> list[Running]:
    """Return the helpers that run, those of other namespaces with the same /run included."""
    paths = map(str, sorted(FOLDER.glob(f"*{status.SUFFIX}")))
    found = [Running(os.path.basename(path).rpartition("-")[0], path, status.holder(path)) for path in paths]  # noqa: PTH119
    return [each for each in found if each.pid]


def report(running: Running) -> dict[str, Any]:
    """Return build, processes, uptime in seconds, restarts, what the helper holds, and memory (PSS in KiB).

    While the guard pauses after an error of the helper, only its own figures are returned.
    """
    shown = {"name": running.name, "pid": running.pid, **status.read(running.path)}
    if (started_s := shown.pop("started_s", None)) is not None:
        shown["uptime_s"] = round(time.clock_gettime(time.CLOCK_BOOTTIME) - started_s)
    pids = [running.pid, *([shown["helper"]] if "helper" in shown else [])]
    shown["pss_kib"] = sum(map(status.pss_kib, pids))
    return shown


def stop(helpers: Iterable[Running]) -> list[Running]:
    """End helpers and their guards; return them. Records remain. Raise CniError 11 if one does not end."""
    stopped = []
    for each in helpers:
        status.signal_holder(each.path, signal.SIGTERM)
        deadline = time.monotonic() + _TIMEOUT_S
        while status.holder(each.path) == each.pid:
            if time.monotonic() > deadline:
                raise CniError(
                    Code.TRY_AGAIN,
                    f"the helper of {each.name}, process {each.pid}, has not ended within {_TIMEOUT_S} s",
                    "Kill it and its child process.",
                )
            time.sleep(_PAUSE_S)
        stopped.append(each)
    return stopped
