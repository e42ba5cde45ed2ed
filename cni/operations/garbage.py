"""What GC removes: things, each with its owner and the reason, and the steps that take them away.

A plugin gives finders. GC runs them and takes the steps; a dry run only lists what they found, so that the
two agree.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from cni.errors import CniError, Code, ErrorList
from cni.log import note
from cni.versions import FIRST_WITH_VERB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.firewall.intents import PortMapping

_CODE_OF_OLD_LIBCNI = 100

_KEYS = {
    "kind": "kind",
    "name": "name",
    "network": "network",
    "container_id": "containerID",
    "ifname": "ifname",
    "reason": "reason",
}


class Stale(NamedTuple):
    """One thing to remove: a link, a lease, a chain, a file.

    The owner's parts are "" where the thing does not tell them. `reason` "" means that its attachment is no
    valid one. `mappings` are the host ports that go with it.
    """

    kind: str
    name: str
    network: str = ""
    container_id: str = ""
    ifname: str = ""
    reason: str = ""
    mappings: tuple[PortMapping, ...] = ()

    def to_dict(self) -> dict[str, str]:
        """Give the JSON object; what is not known is left out."""
        return {key: value for member, key in _KEYS.items() if (value := getattr(self, member))}

    def __str__(self) -> str:
        owner = " ".join(filter(None, (self.container_id, self.ifname)))
        why = self.reason or "its attachment is not valid"
        return f"{self.kind} {self.name}" + (f" of {owner}" if owner else "") + f": {why}"


class Removal(NamedTuple):
    """A step of GC, and the things that it removes."""

    things: tuple[Stale, ...]
    step: Callable[[], object]


# Looks for things when it is called; a later finder sees what the steps of an earlier one have changed.
Finder = Callable[[], Iterable[Removal]]


def parse(told: dict[str, Any]) -> Stale:
    """Read what `to_dict` gave; members that are no texts count as not given."""
    kind, name, network, container_id, ifname, reason = (
        value if isinstance(value := told.get(key), str) else "" for key in _KEYS.values()
    )
    return Stale(kind, name, network, container_id, ifname, reason)


def collect(plugin: str, finders: Sequence[Finder]) -> None:
    """Find and remove, noting each thing on stderr; what fails keeps nothing else from being removed.

    A finder is run when the steps of those before it have been taken. Raises CniError at the end.
    """
    errors = ErrorList()
    for finder in finders:
        for removal in _find(finder, errors):
            for each in removal.things:
                note(f"{plugin}: gc removes {each}")
            errors.attempt(removal.step)
    errors.raise_any()


def plan(finders: Sequence[Finder]) -> list[Stale]:
    """Tell what `collect` would remove. Raises CniError when a finder could not look."""
    errors = ErrorList()
    found = [thing for finder in finders for removal in _find(finder, errors) for thing in removal.things]
    errors.raise_any()
    return list(dict.fromkeys(found))


def _find(finder: Finder, errors: ErrorList) -> list[Removal]:
    found: list[Removal] = []
    errors.attempt(lambda: found.extend(finder()))
    return found


def is_refusal(error: CniError) -> bool:
    """Tell whether a plugin does not know a verb of ours, as those of other suites do not."""
    # Plugins built with libcni before 0.8 refuse with code 100.
    codes = {Code.INVALID_ENVIRONMENT, _CODE_OF_OLD_LIBCNI}
    return error.code in codes and "unknown CNI_COMMAND" in error.msg


def is_own_answer(answer: bytes) -> bool:
    """Return whether it is the answer of a plugin of this suite to CHECK, GC or STATUS by our command."""
    try:
        told = json.loads(answer)
    except ValueError:
        return False
    return isinstance(told, dict) and "pycni" in told


def refusal_text(type_: str, verb: str, version: str) -> str:
    """Return the line that reports a plugin of another suite which has no such verb in this version."""
    first = FIRST_WITH_VERB.get(verb, "")
    return f"plugin {type_} is of another suite: {verb} came with cniVersion {first}, this is {version}"
