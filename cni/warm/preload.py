"""Import everything that a call may need, so that workers import nothing.

A later import would cost each worker its time again. After an upgrade it would read another build's files.
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

# The DNS server would take 13 MiB.
_NOT_FOR_CALLS = ("cni.cli", "cni.dns.serve", "cni.dns.server", "cni.runtime", "cni.testing")
# Modules of the standard library that this suite's functions import when they run.
_IMPORTED_IN_FUNCTIONS = (
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

_GC_THRESHOLD = 20_000


def preload(packages: Iterable[str]) -> None:
    """Import the library, all modules of the plugins' packages, and the modules that functions import.

    If a module has a function `prepare_for_fork()`, it is called. All objects are then exempt from garbage
    collection (`gc.freeze`): a collection in a worker would copy the memory that workers share.
    """
    skel.keep_pydantic_alone()
    for name in [
        *_IMPORTED_IN_FUNCTIONS,
        *_modules("cni"),
        *(each for package in packages for each in _modules(package)),
    ]:
        module = importlib.import_module(name)
        if hasattr(module, "prepare_for_fork"):
            module.prepare_for_fork()
    gc.collect()
    # Return memory that only the imports needed.
    ctypes.CDLL(None).malloc_trim(0)
    gc.freeze()
    # Reference counting frees most objects of a call; the rest can wait for several calls.
    gc.set_threshold(_GC_THRESHOLD)


def _modules(package: str) -> Iterator[str]:
    """Yield a package and all its modules, by their files: pkgutil finds none in a frozen program."""
    yield package
    # A plugin may be a single module, which has no __path__.
    for folder in getattr(importlib.import_module(package), "__path__", ()):
        for path in sorted(Path(folder).iterdir()):
            name = f"{package}.{path.stem}"
            # Importing __main__ would run the plugin.
            if name in _NOT_FOR_CALLS or path.stem in {"__init__", "__main__"}:
                continue
            if path.suffix in {".py", ".pyc"}:
                yield name
            elif any(path.glob("__init__.py*")):
                yield from _modules(name)
