"""Elements of our maps and sets: encode, find by key, search by owner, replace and remove.

An element costs the kernel the same whatever the number of others, and so does finding it by its key.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code, KernelError
from cni.firewall import nft, owners
from cni.firewall.nftables.layout import TABLE
from cni.kernel.attributes import attribute, attributes, each_attribute, nest, shown_text, text
from cni.kernel.nfnetlink import NLM_F_CREATE, NLM_F_EXCL, ChangedMeanwhileError, Message, kept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cni.firewall.intents import Owner

_GETSET = 10
_DELSET = 11
_NEWSETELEM = 12
_GETSETELEM = 13
_DELSETELEM = 14
_SET_TABLE = 1
_SET_NAME = 2
_LIST_TABLE = 1
_LIST_SET = 2
_LIST_ELEMENTS = 3
_LIST_ELEM = 1
_ELEM_KEY = 1
_ELEM_DATA = 2
_ELEM_USERDATA = 6
_DATA_VALUE = 1
# More than parallel calls will ever need; the last try is not bound to a generation.
_TRIES = 50
# So that the answers fit into a socket's buffer.
_MOST_AT_ONCE = 64


class Element(NamedTuple):
    """One element: `set_name` of our table in a family, its key, and the value if that set is a map.

    `what` says in words what it does ("host port 8080/tcp").
    """

    family: int
    set_name: str
    key: bytes
    value: bytes = b""
    what: str = "element"


class Found(NamedTuple):
    """What the kernel has for a key."""

    value: bytes
    comment: str


def _payload(element: Element, *more: bytes) -> bytes:
    body = nest(_LIST_ELEM, nest(_ELEM_KEY, attribute(_DATA_VALUE, element.key)), *more)
    return text(_LIST_TABLE, TABLE) + text(_LIST_SET, element.set_name) + nest(_LIST_ELEMENTS, body)


def _addition(element: Element, comment: str) -> Message:
    value = [nest(_ELEM_DATA, attribute(_DATA_VALUE, element.value))] if element.value else []
    payload = _payload(element, *value, attribute(_ELEM_USERDATA, nft.comment_data(comment)))
    doing = f"add {element.what} to nftables"
    return Message(doing, nft.kind(_NEWSETELEM), element.family, payload, NLM_F_CREATE | NLM_F_EXCL)


def _sharing(element: Element) -> Message:
    """Plan to have an element that is nobody's own, there already or not."""
    doing = f"add {element.what} to nftables"
    return Message(doing, nft.kind(_NEWSETELEM), element.family, _payload(element), NLM_F_CREATE)


def _deletion(element: Element) -> Message:
    doing = f"remove {element.what} from nftables"
    return Message(doing, nft.kind(_DELSETELEM), element.family, _payload(element))


def find(element: Element) -> Found | None:
    """Look an element up by its key."""
    return find_all([element])[0]


def find_all(elements: Sequence[Element]) -> list[Found | None]:
    """Look elements up by their keys, asking once for all; gives for each what `find` gives."""
    questions = [
        Message(f"find {each.what} in nftables", nft.kind(_GETSETELEM), each.family, _payload(each))
        for each in elements
    ]
    return [
        next((found for _, found in _each_found(reply or b"")), None)
        for at in range(0, len(questions), _MOST_AT_ONCE)
        for reply in kept().find_all(questions[at : at + _MOST_AT_ONCE])
    ]


def list_sets(family: int) -> list[str]:
    """Give the names of all sets and maps of our table, the nameless ones of rules left out."""
    replies = kept().dump(Message("list sets", nft.kind(_GETSET), family, text(_SET_TABLE, TABLE)))
    names = [shown_text(attributes(reply).get(_SET_NAME, b"")) for reply in replies]
    return [name for name in names if not name.startswith("__")]


def delete_set(family: int, name: str) -> Message:
    """Plan to delete a set that no rule uses by then."""
    payload = text(_SET_TABLE, TABLE) + text(_SET_NAME, name)
    return Message(f"delete set {name}", nft.kind(_DELSET), family, payload)


def is_empty(family: int, name: str) -> bool:
    """Tell whether a set has no element; true for one that does not exist."""
    return not any(attributes(reply).get(_LIST_ELEMENTS) for reply in _dump(family, name))


def search(family: int, name: str, tag: str) -> list[tuple[Element, str]]:
    """Go through a set for elements whose comment begins with `tag`; gives them and their comments.

    The slow way: it reads everything.
    """
    wanted = tag.encode()
    return [
        (Element(family, name, key, found.value), found.comment)
        for reply in _dump(family, name)
        if wanted in reply
        for key, found in _each_found(reply)
        if found.comment.startswith(tag)
    ]


def _dump(family: int, name: str) -> list[bytes]:
    payload = text(_LIST_TABLE, TABLE) + text(_LIST_SET, name)
    return kept().dump(Message(f"list set {name}", nft.kind(_GETSETELEM), family, payload))


def _each_found(reply: bytes) -> Iterator[tuple[bytes, Found]]:
    for _, raw in each_attribute(attributes(reply).get(_LIST_ELEMENTS, b"")):
        parts = attributes(raw)
        key, value = (
            attributes(parts.get(part, b"")).get(_DATA_VALUE, b"") for part in (_ELEM_KEY, _ELEM_DATA)
        )
        yield key, Found(value, nft.shown_comment(parts.get(_ELEM_USERDATA, b"")))


def owned(elements: Iterable[Element], tag: str) -> list[Element]:
    """Give those that exist and are the owner's: an address or a port may have passed to somebody else."""
    unique = {each[:3]: each for each in elements}
    looked_up = zip(unique.values(), find_all(list(unique.values())), strict=True)
    return [each for each, found in looked_up if found and found.comment.startswith(tag)]


def replace(
    old: Sequence[Element],
    new: Sequence[Element],
    owner: Owner,
    ensure: Callable[[], None],
    shared: Sequence[Element] = (),
) -> list[Element]:
    """Put `new` in the place of `old` in one transaction; gives those of `new` that had to be left out.

    `ensure` makes the sets; it is called when the kernel says that one is missing. Left out are keys of maps
    that another attachment of the same container has. Raises CniError 103 when another container has
    one. In a set, the element of whoever had the address before is taken over. `shared` are elements of sets
    that are nobody's own and stay.
    """
    tag, comment = owners.tag(owner), owners.comment(owner)
    stale = owned(old, tag) if old else []
    wanted, left_out = list(new), list[Element]()
    for _ in range(_TRIES):
        try:
            added = (_addition(each, comment) for each in wanted)
            kept().commit([*map(_deletion, stale), *added, *map(_sharing, shared)])
        except KernelError as error:
            if error.errno == errno.ENOENT:
                ensure()
            elif error.errno != errno.EEXIST:
                raise
            shadowed = _shadowed(wanted, owner)
            left_out += shadowed
            wanted = [each for each in wanted if each not in shadowed]
            stale = list({each[:3]: each for each in (*owned(old, tag), *_existing(wanted))}.values())
        else:
            return left_out
    raise CniError(Code.TRY_AGAIN, "could not write nftables elements: others kept changing them")


def _shadowed(wanted: Sequence[Element], owner: Owner) -> list[Element]:
    shadowed = []
    for each in wanted:
        found = find(each) if each.value else None
        if found is None or found.comment.startswith(owners.tag(owner)):
            continue
        if not owners.is_of_container(found.comment, owner.container_id):
            raise CniError(
                Code.PORT_TAKEN,
                f"{each.what} is taken by {owners.shown(found.comment)}",
                "choose another host port or remove that container",
            )
        shadowed.append(each)
    return shadowed


def _existing(elements: Sequence[Element]) -> list[Element]:
    return [each for each in elements if find(each)]


def remove(candidates: Callable[[], Sequence[Element]]) -> None:
    """Delete what `candidates` finds; it is asked again when the ruleset has changed in between.

    Bound to the ruleset's generation, so that no key is deleted that has just passed to another owner.
    """
    for attempt in range(_TRIES):
        number = nft.generation()
        found = candidates()
        try:
            kept().commit([_deletion(each) for each in found], number if attempt < _TRIES - 1 else None)
        except ChangedMeanwhileError:
            continue
        except KernelError as error:
            if error.errno != errno.ENOENT:
                raise
        else:
            return
