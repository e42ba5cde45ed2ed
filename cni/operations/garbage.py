"""Findings of GC: things, each with its owner and the reason, and the steps that remove them.

A plugin has finders. GC runs the finders and their steps. A dry run only lists the findings, so that both
agree.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from cni.errors import CniError, Code, ErrorList
from cni.log import note
from cni.versions import FIRST_WITH_VERB

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cni.firewall.intents import PortMapping
    from cni.request import Attachment

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

    The owner's fields are "" if the thing does not name them. An empty `reason` means that its attachment is
    not valid. `mappings` are the host ports that become free.
    """

    kind: str
    name: str
    network: str = ""
    container_id: str = ""
    ifname: str = ""
    reason: str = ""
    mappings: tuple[PortMapping, ...] = ()

    def to_dict(self) -> dict[str, str]:
        """Return the JSON object without empty members."""
        return {key: value for member, key in _KEYS.items() if (value := getattr(self, member))}

    def __str__(self) -> str:
        owner = " ".join(filter(None, (self.container_id, self.ifname)))
        why = self.reason or "its attachment is not valid"
        return f"{self.kind} {self.name}" + (f" of {owner}" if owner else "") + f": {why}"


class Removal(NamedTuple):
    """A step of GC, and the things that the step removes."""

    things: tuple[Stale, ...]
    step: Callable[[], object]


# Looks for things when it is called; a later finder sees what the steps of an earlier one have changed.
Finder = Callable[[], Iterable[Removal]]


def parse(answer: dict[str, Any]) -> Stale:
    """Read the result of `to_dict`. Members that are no strings count as missing."""
    kind, name, network, container_id, ifname, reason = (
        value if isinstance(value := answer.get(key), str) else "" for key in _KEYS.values()
    )
    return Stale(kind, name, network, container_id, ifname, reason)


def collect(plugin: str, finders: Sequence[Finder]) -> None:
    """Run finders and their steps, and log each thing. All steps run, also after an error.

    A finder runs after the steps of the finders before it. Raises CniError at the end.
    """
    errors = ErrorList()
    for finder in finders:
        for removal in _find(finder, errors):
            for each in removal.things:
                note(f"{plugin}: gc removes {each}")
            errors.attempt(removal.step)
    errors.raise_any()


def plan(finders: Sequence[Finder]) -> list[Stale]:
    """Return what `collect` would remove. Raises CniError if a finder fails."""
    errors = ErrorList()
    found = [thing for finder in finders for removal in _find(finder, errors) for thing in removal.things]
    errors.raise_any()
    return list(dict.fromkeys(found))


def find_records(plugin: str, network: str, valid: Collection[Attachment]) -> Iterable[Removal]:
    """Yield the removal of each record of a plugin on a network whose attachment is not in `valid`.

    It is a finder for a plugin whose changes end with the container.
    """
    # Most plugins save no records.
    from cni.state import attachments

    for record in attachments.list_stale(plugin, network, valid):
        thing = Stale("record", record.path, network, record.container_id, record.ifname)
        yield Removal((thing,), partial(attachments.remove, record))


def _find(finder: Finder, errors: ErrorList) -> list[Removal]:
    found: list[Removal] = []
    errors.attempt(lambda: found.extend(finder()))
    return found


def is_refusal(error: CniError) -> bool:
    """Return whether an error says that the plugin does not know a verb of this suite."""
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
