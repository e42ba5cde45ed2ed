"""Elements of our maps and sets: encode, find by key, search by owner, replace and remove.

The cost of an element, and of finding it by its key, does not depend on the number of others.
"""

from __future__ import annotations

import errno
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code, KernelError
from cni.firewall import nft, owners
from cni.firewall.nftables.layout import RESTRICTIONS, TABLE
from cni.kernel.attributes import attribute, attributes, each_attribute, nest, shown_text, text
from cni.kernel.nfnetlink import NLM_F_CREATE, NLM_F_EXCL, ChangedMeanwhileError, Message, kept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cni.firewall.intents import Owner

_GETSET = nft.MESSAGES | 10
_DELSET = nft.MESSAGES | 11
_NEWSETELEM = nft.MESSAGES | 12
_GETSETELEM = nft.MESSAGES | 13
_DELSETELEM = nft.MESSAGES | 14
_SET_TABLE = 1
_SET_NAME = 2
_LIST_TABLE = 1
_LIST_SET = 2
_LIST_ELEMENTS = 3
_LIST_ELEM = 1
_ELEM_KEY = 1
_ELEM_DATA = 2
_ELEM_USERDATA = 6
_ELEM_KEY_END = 10
_DATA_VALUE = 1
# More than parallel calls need. The last try is not bound to a generation.
_TRIES = 50
# As many replies as fit into the socket's buffer.
_MOST_AT_ONCE = 64


class Element(NamedTuple):
    """One element: `set_name` of a table in a family, its key, and the value if that set is a map.

    `purpose` names it in messages ("host port 8080/tcp"). An element is identified by its first three fields.
    `end` is the last key of an element that is an interval, b"" for others.
    """

    family: int
    set_name: str
    key: bytes
    value: bytes = b""
    purpose: str = "element"
    table: str = TABLE
    end: bytes = b""

    def restricts(self, port: Element) -> bool:
        """Return whether this is an element for the clients of a port, which is an element of a map."""
        sets = RESTRICTIONS.get(port.set_name, ())
        return self.family == port.family and self.set_name in sets and self.key.startswith(port.key)


class Forward(NamedTuple):
    """The content of an element of the port maps. Addresses are packed; `host_ip` is b"" for all."""

    host_ip: bytes
    protocol: int
    host_port: int
    address: bytes
    container_port: int


class Found(NamedTuple):
    """The value and the comment that the kernel has for a key; `end` is that of an interval."""

    value: bytes
    comment: str
    end: bytes = b""


def shown_forward(element: Element) -> Forward:
    """Decode an element of the port maps."""
    host_ip, key = element.key[:-8], element.key[-8:]
    address, port = element.value[:-4], element.value[-4:]
    return Forward(host_ip, key[0], int.from_bytes(key[4:6], "big"), address, int.from_bytes(port[:2], "big"))


def shown_clients(element: Element) -> str:
    """Return the network of an interval, as nft writes it: "10.1.0.0-10.1.255.255"."""
    size = nft.ADDRESS_BYTES[element.family]
    return f"{ip_address(element.key[-size:])}-{ip_address(element.end[-size:])}"


def _payload(element: Element, *more: bytes) -> bytes:
    end = (nest(_ELEM_KEY_END, attribute(_DATA_VALUE, element.end)),) if element.end else ()
    body = nest(_LIST_ELEM, nest(_ELEM_KEY, attribute(_DATA_VALUE, element.key)), *end, *more)
    return text(_LIST_TABLE, element.table) + text(_LIST_SET, element.set_name) + nest(_LIST_ELEMENTS, body)


def _addition(element: Element, comment: str) -> Message:
    value = [nest(_ELEM_DATA, attribute(_DATA_VALUE, element.value))] if element.value else []
    payload = _payload(element, *value, attribute(_ELEM_USERDATA, nft.comment_data(comment)))
    doing = f"add {element.purpose} to nftables"
    return Message(doing, _NEWSETELEM, element.family, payload, NLM_F_CREATE | NLM_F_EXCL)


def _sharing(element: Element) -> Message:
    """Return the message that adds an element without an owner unless it exists."""
    doing = f"add {element.purpose} to nftables"
    return Message(doing, _NEWSETELEM, element.family, _payload(element), NLM_F_CREATE)


def _deletion(element: Element) -> Message:
    doing = f"remove {element.purpose} from nftables"
    return Message(doing, _DELSETELEM, element.family, _payload(element))


def find(element: Element) -> Found | None:
    """Find an element by its key."""
    return find_all([element])[0]


def find_all(elements: Sequence[Element]) -> list[Found | None]:
    """Find elements by their keys, with one question for all. Return for each what `find` returns."""
    questions = [
        Message(f"find {each.purpose} in nftables", _GETSETELEM, each.family, _payload(each))
        for each in elements
    ]
    return [
        next((found for _, found in _each_found(reply or b"")), None)
        for at in range(0, len(questions), _MOST_AT_ONCE)
        for reply in kept().find_all(questions[at : at + _MOST_AT_ONCE])
    ]


def list_sets(family: int) -> list[str]:
    """Return the names of all sets and maps of our table, without the anonymous ones of rules."""
    replies = kept().dump(Message("list sets", _GETSET, family, text(_SET_TABLE, TABLE)))
    names = [shown_text(attributes(reply).get(_SET_NAME, b"")) for reply in replies]
    return [name for name in names if not name.startswith("__")]


def delete_set(family: int, name: str) -> Message:
    """Return the message that deletes a set, which no rule may use by then."""
    payload = text(_SET_TABLE, TABLE) + text(_SET_NAME, name)
    return Message(f"delete set {name}", _DELSET, family, payload)


def is_empty(family: int, name: str, table: str = TABLE) -> bool:
    """Return whether a set has no element or does not exist."""
    return not any(attributes(reply).get(_LIST_ELEMENTS) for reply in _dump(family, name, table))


def search(family: int, name: str, tag: str, table: str = TABLE) -> list[tuple[Element, str]]:
    """Return the elements of a set whose comment begins with `tag`, with their comments.

    This is slow, as it reads the whole set.
    """
    wanted = tag.encode()
    return [
        (Element(family, name, key, found.value, table=table, end=found.end), found.comment)
        for reply in _dump(family, name, table)
        if wanted in reply
        for key, found in _each_found(reply)
        if found.comment.startswith(tag)
    ]


def _dump(family: int, name: str, table: str) -> list[bytes]:
    payload = text(_LIST_TABLE, table) + text(_LIST_SET, name)
    return kept().dump(Message(f"list set {name}", _GETSETELEM, family, payload))


def _each_found(reply: bytes) -> Iterator[tuple[bytes, Found]]:
    for _, raw in each_attribute(attributes(reply).get(_LIST_ELEMENTS, b"")):
        parts = attributes(raw)
        key, value, end = (
            attributes(parts.get(part, b"")).get(_DATA_VALUE, b"")
            for part in (_ELEM_KEY, _ELEM_DATA, _ELEM_KEY_END)
        )
        yield key, Found(value, nft.shown_comment(parts.get(_ELEM_USERDATA, b"")), end)


def owned(elements: Iterable[Element], tag: str) -> list[Element]:
    """Return those that exist and belong to the owner: another one may have the address or port by now."""
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
    """Replace `old` by `new` in one transaction. Return those of `new` that are left out.

    `ensure` makes the sets; it is called if the kernel reports that one is missing. Keys of maps that another
    attachment of the same container has are left out. Raise CniError 103 if another container has one. In a
    set, the element of an address's former owner is replaced. `shared` are elements without an owner, which
    remain.
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
            elif error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
                raise
            shadowed = _shadowed(wanted, owner)
            left_out += shadowed
            gone = [each for each in wanted if any(map(each.restricts, shadowed))]
            wanted = [each for each in wanted if each not in shadowed and each not in gone]
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
                f"{each.purpose} is taken by {owners.shown(found.comment)}",
                "choose another host port or remove that container",
            )
        shadowed.append(each)
    return shadowed


def _existing(elements: Sequence[Element]) -> list[Element]:
    """Return those elements that exist; instead of an interval, those that overlap it."""
    return [
        found
        for each in elements
        for found in (_overlapping(each) if each.end else [each] if find(each) else [])
    ]


def _overlapping(wanted: Element) -> list[Element]:
    """Return the intervals of a set that overlap one. Only the last part of their keys is an interval."""
    size = nft.ADDRESS_BYTES[wanted.family]
    listed = search(wanted.family, wanted.set_name, "", wanted.table)
    return [
        each
        for each, _ in listed
        if each.key[:-size] == wanted.key[:-size] and each.key <= wanted.end and wanted.key <= each.end
    ]


def put(new: Sequence[Element], owner: Owner, shared: Sequence[Element], ensure: Callable[[], None]) -> None:
    """Add elements of sets, `shared` ones without an owner. `ensure` makes the sets if one is missing."""
    replace((), new, owner, ensure, shared)


def remove(candidates: Callable[[], Sequence[Element]]) -> None:
    """Delete what `candidates` finds. Call it again if the ruleset changes meanwhile.

    The deletion is bound to the ruleset's generation, so that no key is deleted that has got another owner.
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
