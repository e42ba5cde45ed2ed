"""The versions of the CNI specification, and the verbs and fields that each has."""

from __future__ import annotations

import json
from functools import cache, lru_cache

from cni.errors import CniError, Code

SUPPORTED = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
OLDEST = "0.1.0"
CURRENT = "1.1.0"

# First version of each verb that 0.1.0 does not have (CNI spec 1.1.0, section 2, Operations).
FIRST_WITH_VERB = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
FIRST_WITH_PREV_RESULT_ON_DEL = "0.4.0"
# First version with mtu, socketPath, pciID of interfaces and mtu, advmss, priority, table, scope of routes.
FIRST_WITH_DETAILS = "1.1.0"


@lru_cache(maxsize=32)
def parse(version: str) -> tuple[int, int, int]:
    """Return "1.0.0" as (1, 0, 0); missing parts are 0. Raise CniError 6 if it is not a version."""
    parts = version.split(".")
    if len(parts) > 3 or not all(part.isascii() and part.isdigit() for part in parts):
        raise CniError(
            Code.DECODING_FAILURE,
            f'could not parse cniVersion "{version}"',
            f"Set it to one of: {', '.join(SUPPORTED)}.",
        )
    numbers = [int(part) for part in parts] + [0, 0]
    return numbers[0], numbers[1], numbers[2]


def at_least(version: str, other: str) -> bool:
    """Return whether `version` is `other` or newer."""
    return parse(version) >= parse(other)


def require(version: str, supported: tuple[str, ...]) -> None:
    """Raise CniError 1 unless the configuration's version is one of the plugin's, compared as a string."""
    if version not in supported:
        listed = " ".join(f'"{each}"' for each in supported)
        raise CniError(
            Code.INCOMPATIBLE_VERSION,
            "incompatible CNI versions",
            f'config is "{version}", plugin supports [{listed}]',
        )


def require_verb(verb: str, version: str, supported: tuple[str, ...]) -> None:
    """Raise CniError 1 if the configuration's version, or every version of the plugin, precedes the verb."""
    first = FIRST_WITH_VERB.get(verb)
    if first is None:
        return
    if not at_least(version, first):
        raise CniError(
            Code.INCOMPATIBLE_VERSION,
            f"config version does not allow {verb}",
            f'cniVersion is "{version}", {verb} came with {first}',
        )
    if not any(at_least(each, version) for each in supported):
        raise CniError(Code.INCOMPATIBLE_VERSION, f"plugin version does not allow {verb}")


@cache
def supported_text(versions: tuple[str, ...], current: str) -> bytes:
    """Return the answer to VERSION: one compact line."""
    answer = {"cniVersion": current, "supportedVersions": list(versions)}
    return json.dumps(answer, separators=(",", ":")).encode() + b"\n"
