"""Find a running container by its name, ID, pod or namespace: in the result cache, as `pycni show` does."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code
from cni.operations import holders

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.runtime.cache import Entry

# Fewer characters are no beginning of an ID.
_ID_CHARACTERS = 4


class Container(NamedTuple):
    """A running container with its attachments, of which there is at least one."""

    id: str
    netns: str
    entries: tuple[Entry, ...]

    def of_network(self, network: str) -> list[Entry]:
        """Return the container's attachments to a network."""
        return [each for each in self.entries if each.network == network]


def find(entries: Iterable[Entry], word: str, path: str) -> Container:
    """Return the running container that a word names. Raise CniError 3 without exactly one.

    `path` is the namespace that the word names. The whole ID and the namespace have precedence over names,
    and names over the beginning of an ID.
    """
    listed = [each for each in entries if each.sandbox]
    matching = next(
        filter(None, ([each for each in listed if test(each, word, path)] for test in _TESTS)), []
    )
    if not matching:
        raise CniError(
            Code.UNKNOWN_CONTAINER,
            f"no such container: {word}",
            'Run "pycni show" for a list. Name a container by its name, ID, pod or namespace.',
        )
    alive = {each.container_id: each.sandbox for each in matching if _is_alive(each)}
    if not alive:
        raise CniError(
            Code.UNKNOWN_CONTAINER,
            f"container {word} is not running: its network namespace is gone",
            "Start it, or remove its remains with pycni gc --dead-only.",
        )
    if len(alive) > 1:
        raise CniError(
            Code.UNKNOWN_CONTAINER,
            f'"{word}" names several containers: {", ".join(sorted(alive))}',
            "Use the whole ID.",
        )
    [(found, netns)] = alive.items()
    own = tuple(each for each in listed if each.container_id == found and _is_alive(each))
    return Container(found, netns, own)


def names(entry: Entry) -> tuple[str, ...]:
    """Return the names that a runtime passed for an attachment's container: "pod" and "namespace/pod"."""
    args = dict(entry.args)
    name, namespace = args.get("K8S_POD_NAME", ""), args.get("K8S_POD_NAMESPACE", "")
    return tuple(filter(None, (name, f"{namespace}/{name}" if name and namespace else "")))


def _is_alive(entry: Entry) -> bool:
    return not holders.is_proven_gone(entry.sandbox, entry.result)


def _has_id(entry: Entry, word: str, path: str) -> bool:
    return entry.container_id == word or entry.sandbox == path


def _has_place(entry: Entry, _word: str, path: str) -> bool:
    place = holders.identify(path)
    return bool(place) and holders.identify(entry.sandbox) == place


def _has_name(entry: Entry, word: str, _path: str) -> bool:
    return word in names(entry)


def _has_beginning(entry: Entry, word: str, _path: str) -> bool:
    # nerdctl puts containerd's namespace before the ID.
    whole = (entry.container_id, entry.container_id.partition("-")[2])
    return len(word) >= _ID_CHARACTERS and any(each.startswith(word) for each in whole)


_TESTS = (_has_id, _has_place, _has_name, _has_beginning)
