"""Import all that a call may need, so that workers import nothing.

What is imported late would cost each worker its time again, and would come from the files of
another build once this one has been replaced.
"""

from __future__ import annotations

import gc
import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_NOT_FOR_CALLS = ("cni.cli", "cni.runtime", "cni.testing")
# What functions of ours import from the standard library when they run.
_LATE = ("ctypes", "fcntl", "json", "random", "select", "shutil", "signal", "subprocess", "tempfile")

_COLLECTED_AT = 20_000


def preload(packages: Iterable[str]) -> None:
    """Import the library, the plugins' packages with all their modules, and what those load late.

    A module that opens its door late offers `open_door()`. The collector leaves alone what is there
    then: counting it again in each worker would copy its memory.
    """
    for name in [*_LATE, *_modules("cni"), *(each for package in packages for each in _modules(package))]:
        module = importlib.import_module(name)
        if hasattr(module, "open_door"):
            module.open_door()
    gc.collect()
    gc.freeze()
    # What a call makes is freed without the collector; what is not can wait for some calls.
    gc.set_threshold(_COLLECTED_AT)


def _modules(package: str) -> Iterator[str]:
    yield package
    # A plugin may be one module.
    folders = getattr(importlib.import_module(package), "__path__", ())
    for each in pkgutil.iter_modules(folders, f"{package}."):
        # __main__ is the entry of a process, which runs when it is imported.
        if each.name in _NOT_FOR_CALLS or each.name.endswith(".__main__"):
            continue
        if each.ispkg:
            yield from _modules(each.name)
        else:
            yield each.name
