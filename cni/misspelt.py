"""Find keys that no plugin reads and that look like a known key. The spec allows all other unknown keys."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.conf import Unread

_SHORTEST = 3
# From this length on two wrong letters count as a misspelling.
_LONG = 8


def explain(unread: Iterable[Unread]) -> list[str]:
    """Return a sentence for each key that is near a known one."""
    pairs = ((each, find_near(each.key, each.known)) for each in unread)
    return [describe(f"{each.where}.{each.key}".lstrip("."), near) for each, near in pairs if near]


def describe(key: str, near: str) -> str:
    """Return the sentence for one key."""
    return f'unknown key {json.dumps(key)} has no effect, did you mean "{near}"?'


def find_near(key: str, known: Iterable[str]) -> str:
    """Return the known key that is nearest, "" if none is near."""
    plain = _plain(key)
    if len(plain) < _SHORTEST:
        return ""
    limit = 1 if len(plain) < _LONG else 2
    # Of two keys at the same distance the first by name counts.
    distances = [(distance(plain, _plain(each)), each) for each in sorted(known)]
    best, near = min(distances, default=(limit + 1, ""))
    return near if best <= limit else ""


def _plain(key: str) -> str:
    """Return a key without case and separators: `is_gateway` is `isGateway`."""
    return key.lower().replace("_", "").replace("-", "")


def distance(one: str, other: str) -> int:
    """Return how many letters must be inserted, deleted, replaced or swapped to get from one to the other."""
    if abs(len(one) - len(other)) > 2:
        return len(one)
    before: list[int] = []
    row = list(range(len(other) + 1))
    for number, letter in enumerate(one, 1):
        two_before, before, row = before, row, [number]
        for place, wanted in enumerate(other, 1):
            cost = min(before[place] + 1, row[-1] + 1, before[place - 1] + (letter != wanted))
            is_swap = number > 1 and place > 1 and letter == other[place - 2] and one[number - 2] == wanted
            row.append(min(cost, two_before[place - 2] + 1) if is_swap else cost)
    return row[-1]
