"""The JSON types that a model's fields take: in the words of an error message, and as JSON Schema.

One description serves both, so that an error names what the schema names. Nothing here is on the path of a
call that succeeds.
"""

from __future__ import annotations

import types
from enum import Enum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydantic.fields import FieldInfo

_ADDRESSES = (IPv4Address, IPv6Address, IPv4Interface, IPv6Interface, IPv4Network, IPv6Network)
_SCALARS = {str: "string", bool: "boolean", int: "integer", float: "number"}
_ARRAYS = (tuple, list, set, frozenset)
_OF_VALUES = {
    dict: "an object",
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    types.NoneType: "null",
}
# What the bounds of a type count, if not its value.
_LENGTHS = {"string": " characters", "array": " members"}
_WORDS = {
    "any": ("any value", "values"),
    "object": ("an object", "objects"),
    "array": ("an array", "arrays"),
    "string": ("a string", "strings"),
    "boolean": ("a boolean", "booleans"),
    "number": ("a number", "numbers"),
    "integer": ("a whole number", "whole numbers"),
}


class JsonType(NamedTuple):
    """A type by its name in JSON Schema.

    `low` and `high` bound a number, or the length of a string or an array. `choices` are all allowed values.
    `items` are the types of an array's members, or of the values of an object that has no `model`.
    """

    name: str
    low: int | None = None
    high: int | None = None
    choices: tuple[Any, ...] = ()
    items: tuple[JsonType, ...] = ()
    model: type[BaseModel] | None = None


def json_type(value: object) -> str:
    """Return the name of a decoded value's JSON type, with its article."""
    return _OF_VALUES.get(type(value), "another value")


def of_field(field: FieldInfo) -> tuple[JsonType, ...]:
    """Return the types that a field takes; null, which every key takes as "not given", is not among them."""
    return _distinct(_list_types(field.annotation, field.metadata))


def _distinct(kinds: Iterable[JsonType]) -> tuple[JsonType, ...]:
    return tuple(dict.fromkeys(kinds))


def _list_types(annotation: Any, metadata: Iterable[Any] = ()) -> Iterator[JsonType]:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _list_types(args[0], [*args[1:], *metadata])
    elif origin in {Union, types.UnionType}:
        for each in args:
            yield from _list_types(each, metadata)
    elif origin is Literal:
        yield _choice(args)
    elif origin in _ARRAYS:
        members = [each for each in args if each is not Ellipsis]
        items = _distinct(found for each in members for found in _list_types(each))
        yield JsonType("array", *_bounds(metadata, "min_length", "max_length"), items=items)
    elif origin is dict or annotation is dict:
        yield JsonType("object", items=_distinct(_list_types(args[1])) if args else ())
    elif isinstance(annotation, type):
        yield from _list_classes(annotation, metadata)
    else:
        yield JsonType("any")


def _list_classes(annotation: type, metadata: Iterable[Any]) -> Iterator[JsonType]:
    if issubclass(annotation, BaseModel):
        yield JsonType("object", model=annotation)
    elif issubclass(annotation, Enum):
        yield _choice(each.value for each in annotation)
    elif annotation in _ADDRESSES:
        yield JsonType("string")
    elif annotation is int:
        yield JsonType("integer", *_bounds(metadata, "ge", "le"))
    elif annotation is str:
        yield JsonType("string", *_bounds(metadata, "min_length", "max_length"))
    elif annotation is not types.NoneType:
        yield JsonType(_SCALARS.get(annotation, "any"))


def _choice(values: Iterable[Any]) -> JsonType:
    choices = tuple(values)
    [name] = {_SCALARS.get(type(each), "any") for each in choices}
    return JsonType(name, choices=choices)


def _bounds(metadata: Iterable[Any], least: str, greatest: str) -> tuple[int | None, int | None]:
    """Return the bounds in the annotations of a type; each bound is an attribute of this name."""
    low, high = None, None
    for each in _unpacked(metadata):
        low = getattr(each, least, low)
        high = getattr(each, greatest, high)
    return low, high


def _unpacked(metadata: Iterable[Any]) -> Iterator[Any]:
    # Field(ge=0) in an annotation is a FieldInfo with the bounds among its own metadata.
    for each in metadata:
        yield from getattr(each, "metadata", [each])


def in_words(kinds: Iterable[JsonType], *, plural: bool = False) -> str:
    """Return types as an error message names them: "an array of objects", "a whole number from 0 to 9"."""
    return " or ".join(dict.fromkeys(_in_words(each, plural=plural) for each in kinds))


def _in_words(kind: JsonType, *, plural: bool) -> str:
    if kind.choices:
        return " or ".join(_quoted(each) for each in kind.choices)
    words = _WORDS[kind.name][plural]
    if kind.items and kind.items != (JsonType("any"),):
        words += f" of {in_words(kind.items, plural=True)}"
    if kind.low is None and kind.high is None:
        return words
    unit = _LENGTHS.get(kind.name, "")
    if kind.low is not None and kind.high is not None:
        return f"{words} {'with' if unit else 'from'} {kind.low} to {kind.high}{unit}"
    bound = f"at least {kind.low}" if kind.high is None else f"at most {kind.high}"
    return f"{words} {'with' if unit else 'of'} {bound}{unit}"


def _quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
