"""Import dnspython without importlib.metadata, by which it looks for optional packages.

That import takes 2.4 MiB and a fifth of the server's start. None of these packages is a dependency of ours.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

_METADATA = "importlib.metadata"


def _import() -> None:
    # dnspython takes a failing look-up for "not installed".
    is_hidden = _METADATA not in sys.modules
    if is_hidden:
        sys.modules[_METADATA] = ModuleType(_METADATA)
    try:
        for name in ("dns.message", "dns.rdtypes.ANY.PTR", "dns.rdtypes.IN.A", "dns.rdtypes.IN.AAAA"):
            import_module(name)
    finally:
        if is_hidden:
            del sys.modules[_METADATA]


_import()
