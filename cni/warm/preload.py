"""Import all that a call may need, so that workers import nothing.

What is imported late would cost each worker its time again, and would come from the files of
another build once this one has been replaced.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from cni import skel

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_NOT_FOR_CALLS = ("cni.cli", "cni.runtime", "cni.testing")
# What functions of ours import from the standard library when they run.
_LATE = (
    "ctypes",
    "encodings.ascii",
    "fcntl",
    "json",
    "random",
    "select",
    "shutil",
    "signal",
    "subprocess",
    "tempfile",
)

_COLLECTED_AT = 20_000


def preload(packages: Iterable[str]) -> None:
    """Import the library, the plugins' packages with all their modules, and what those load late.

    A module that opens its door late offers `open_door()`. The collector leaves alone what is there
    then: counting it again in each worker would copy its memory.
    """
    skel.keep_pydantic_alone()
    for name in [*_LATE, *_modules("cni"), *(each for package in packages for each in _modules(package))]:
        module = importlib.import_module(name)
        if hasattr(module, "open_door"):
            module.open_door()
    gc.collect()
    # What the imports have needed for a moment only.
    ctypes.CDLL(None).malloc_trim(0)
    gc.freeze()
    # What a call makes is freed without the collector; what is not can wait for some calls.
    gc.set_threshold(_COLLECTED_AT)


def _modules(package: str) -> Iterator[str]:
    """Give a package and all modules in it, by their files: pkgutil sees none in a frozen program."""
    yield package
    # A plugin may be one module, which has no path.
    for folder in getattr(importlib.import_module(package), "__path__", ()):
        for path in sorted(Path(folder).iterdir()):
            name = f"{package}.{path.stem}"
            # __main__ is the entry of a process, which runs when it is imported.
            if name in _NOT_FOR_CALLS or path.stem in {"__init__", "__main__"}:
                continue
            if path.suffix in {".py", ".pyc"}:
                yield name
            elif any(path.glob("__init__.py*")):
                yield from _modules(name)
