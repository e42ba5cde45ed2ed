"""A configuration that a model refuses, as an error in JSON's words; the only reader of pydantic's errors.

The message comes from the type of the refused field, not from pydantic's text: every kind of error that a
model can raise is covered, those of future models too.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from cni.errors import CniError, Code
from cni.json_types import JsonType, in_words, json_type, of_field
from cni.log import note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel
    from pydantic_core import ErrorDetails

# Keys that the specification defines for every plugin: the Go library decodes these before a plugin runs.
_COMMON = frozenset({("cniVersion",), ("name",), ("type",), ("ipam",), ("ipam", "type"), ("dns",)})
_LONGEST = 200


class _Problem(NamedTuple):
    """One refused field: the message, and the remedy as an imperative, "" for a model's own check."""

    text: str
    remedy: str


def refusal(model: type[BaseModel], error: ValidationError, prefix: str = "") -> CniError:
    """Return the CniError for a document that a model refuses; `prefix` is the document's own path.

    The code is 7, or 6 for a wrong JSON type of a key that the specification defines, as in the Go library.
    """
    errors = error.errors(include_url=False)
    problems = [_explain(model, each, prefix) for each in errors]
    # A union reports an error for each of its members.
    first, *others = dict.fromkeys(problems)
    is_undecodable = not prefix and _is_undecodable(errors[0])
    code = Code.DECODING_FAILURE if is_undecodable else Code.INVALID_CONFIG
    also = f"Also: {'; '.join(each.text for each in others)}." if others else ""
    return CniError(code, first.text, f"{first.remedy} {also}".strip())


def _is_undecodable(error: ErrorDetails) -> bool:
    place = error["loc"]
    is_common = place in _COMMON or place[:1] == ("dns",)
    return is_common and error["type"] not in {"missing", "value_error"}


def _explain(model: type[BaseModel], error: ErrorDetails, prefix: str) -> _Problem:
    path, wanted = _locate(model, error["loc"], prefix)
    value = _shown(error["input"])
    correct = f'Correct "{path}", which is {value}.' if path else ""
    if error["type"] == "value_error":
        return _Problem(str(error["ctx"]["error"]), correct)
    if error["type"] == "missing":
        return _Problem(f'"{path}" is missing', f'Set "{path}" to {in_words(wanted)}.')
    if error["type"] == "extra_forbidden":
        return _Problem(f'"{path}" is not a key of this object', f'Remove "{path}".')
    got = json_type(error["input"])
    # A value of the right type is refused for what it is, and the message shows it.
    is_of_type = any(_is_of(each, got) for each in wanted)
    return _Problem(f'"{path}" must be {in_words(wanted)}, got {value if is_of_type else got}', correct)


def _is_of(wanted: JsonType, got: str) -> bool:
    return got == ("a number" if wanted.name == "integer" else in_words([JsonType(wanted.name)]))


def _shown(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _locate(
    model: type[BaseModel], place: tuple[int | str, ...], prefix: str
) -> tuple[str, tuple[JsonType, ...]]:
    """Return the path of a value, "ranges[0][1].subnet", and the types that the model takes there.

    pydantic's place has other parts, too, such as the name of a union's member. They are left out.
    """
    path = prefix
    found: tuple[JsonType, ...] = (JsonType("object", model=model),)
    for part in place:
        if isinstance(part, int):
            path += f"[{part}]"
            found = tuple(item for each in found for item in each.items)
        elif (field := _field(found, part)) is not None:
            path += f".{part}" if path else part
            found = of_field(field)
        elif values := tuple(item for each in found if each.name == "object" for item in each.items):
            path += f".{part}"
            found = values
    return path, found


def _field(kinds: tuple[JsonType, ...], alias: str) -> Any:
    fields = [field for each in kinds if each.model for field in each.model.model_fields.items()]
    return next((field for name, field in fields if (field.alias or name) == alias), None)


# Objects of which single keys can be left out.
_OBJECTS = ("args", "ipam", "runtimeconfig")
_Path = tuple[str, ...]


def leave_out_refused(
    model: type[BaseModel], document: dict[str, Any], needed: frozenset[str], spec_keys: frozenset[str]
) -> dict[str, Any]:
    """Return a document without the keys that the model refuses; log them.

    Keys in `needed` and those of the specification, `spec_keys` in lower case, stay: the model's error is
    raised if one of these is refused. A check of the whole model names no key: then all keys go that may.
    """
    stay = {path.lower() for path in needed}
    left_out: set[_Path] = set()
    while True:
        given = _without(document, left_out)
        try:
            model.model_validate(given)
        except ValidationError as error:
            places = [each["loc"] for each in error.errors(include_url=False)]
            more = {path for place in places for path in _refused_keys(place, given, spec_keys)}
            more = {path for path in more if ".".join(path).lower() not in stay}
            if not more:
                raise refusal(model, error) from error
            left_out |= more
        else:
            keys = ", ".join(sorted(".".join(path) for path in left_out))
            note(f'network "{document.get("name")}": DEL ignores values that ADD refuses: {keys}')
            return given


def _refused_keys(
    place: tuple[int | str, ...], document: dict[str, Any], spec_keys: frozenset[str]
) -> Iterator[_Path]:
    """Yield the paths of keys that may be left out because of an error at `place`."""
    names = {key.lower(): key for key in document}
    top, within = [*(str(part).lower() for part in place), "", ""][:2]
    if not top:
        yield from ((key,) for folded, key in names.items() if folded not in spec_keys)
    elif top in _OBJECTS:
        inner = document.get(names.get(top, ""))
        keys = [key for key in inner if key.lower() != "type"] if isinstance(inner, dict) else []
        yield from ((top, key) for key in keys if within in {"", key.lower()})
    elif top not in spec_keys and top in names:
        yield (names[top],)


def _without(document: dict[str, Any], left_out: set[_Path]) -> dict[str, Any]:
    """Return the document without these keys."""
    given: dict[str, Any] = {}
    for key, value in document.items():
        if (key,) in left_out:
            continue
        given[key] = value
        if isinstance(value, dict):
            given[key] = {name: each for name, each in value.items() if (key.lower(), name) not in left_out}
    return given
