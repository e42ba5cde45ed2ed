"""What every plugin configuration shares, and the base class for the keys of one's own.

Models here are pure: they look at nothing but the JSON they are made from. Keys match without regard
to case and JSON null means "not given", as in the Go library, on which runtimes rely; unknown keys
are kept. A model of one's own derives from `NetConf`, its nested objects from `Model`.
"""

from __future__ import annotations

import json
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticKnownError

from cni.errors import CniError, Code
from cni.result import Dns
from cni.versions import OLDEST

if TYPE_CHECKING:
    from collections.abc import Callable

# JSON scalars as the Go library reads them: no 1400.0 or "1400" for a number, no "true" for a boolean.
Bool = StrictBool
Int = StrictInt
Str = StrictStr
# Numbers that the kernel takes. A value outside is CniError 7, which names the key and the bounds.
Unsigned = Annotated[StrictInt, Field(ge=0, le=0xFFFFFFFF)]
# 0 leaves the MTU to the kernel, which allows at most 65535 for the links that plugins create.
Mtu = Annotated[StrictInt, Field(ge=0, le=0xFFFF)]
# 0 is no VLAN.
VlanId = Annotated[StrictInt, Field(ge=0, le=4094)]
Port = Annotated[StrictInt, Field(ge=1, le=0xFFFF)]
PrefixLength = Annotated[StrictInt, Field(ge=0, le=128)]

M = TypeVar("M", bound="Model")


class Within(NamedTuple):
    """Bounds of a number that a validator of the model enforces, whose error is the Go plugin's text."""

    ge: int
    le: int


def parsed_by(parse: Callable[[str], object]) -> BeforeValidator:
    """Return a validator that takes strings only and parses them. `parse` raises ValueError."""

    def read_text(value: object) -> object:
        if not isinstance(value, str):
            raise PydanticKnownError("string_type")
        return parse(value)

    return BeforeValidator(read_text)


# A longer configuration is parsed each time.
_KEPT_BYTES = 1 << 14


class Model(BaseModel):
    """A JSON object of a configuration; field `is_gateway` is the key `isGateway`, in any case."""

    model_config = ConfigDict(frozen=True, extra="allow", alias_generator=to_camel, populate_by_name=False)

    @model_validator(mode="before")
    @classmethod
    def _fold_keys(cls, data: object) -> object:
        """Match keys without regard to case and drop nulls; of several spellings the last one wins."""
        if not isinstance(data, dict):
            return data
        aliases = _folded_aliases(cls)
        if data.keys() <= _exact_keys(cls) and None not in data.values():
            return data
        return {aliases.get(key.lower(), key): value for key, value in data.items() if value is not None}


@cache
def _folded_aliases(model: type[Model]) -> dict[str, str]:
    """Give the keys of a model by what they are in small letters."""
    found = ((field.alias or name) for name, field in model.model_fields.items())
    return {alias.lower(): alias for alias in found}


@cache
def _exact_keys(model: type[Model]) -> frozenset[str]:
    return frozenset(_folded_aliases(model).values())


class DnsConf(Model):
    """The `dns` object of a configuration (CNI spec 1.1.0, section 1).

    Attributes:
        nameservers: Addresses of name servers, in order of preference.
        domain: Local domain for short host names.
        search: Domains to search for short host names, in order of preference.
        options: Options for the resolver.
    """

    nameservers: tuple[Str, ...] = ()
    domain: Str = ""
    search: tuple[Str, ...] = ()
    options: tuple[Str, ...] = ()

    def is_given(self) -> bool:
        """Return whether the configuration has any member. An empty array counts as given."""
        return bool(self.model_fields_set - set(self.model_extra or ()))

    def to_dns(self) -> Dns:
        """Return the settings as a member of a result."""
        return Dns(self.nameservers, self.domain, self.search, self.options)


class IpamConf(Model):
    """The `ipam` object as an interface plugin reads it. The other keys are for the IPAM plugin.

    Attributes:
        type: Name of the IPAM plugin's executable.
    """

    type: Str = ""


class Args(Model):
    """The `args` object.

    Attributes:
        cni: The part that the conventions give to plugins.
    """

    cni: dict[str, Any] = Field(default_factory=dict)


class NetConf(Model):
    """The configuration that a runtime passes to a plugin (CNI spec 1.1.0, section 1).

    Attributes:
        cni_version: Version of the specification that the configuration is written for.
        name: Name of the network.
        type: Name of the plugin's executable.
        ipam: The configuration of the IPAM plugin.
        dns: Settings of name resolution for the result.
        args: Arguments of the runtime (conventions of CNI, "args").
    """

    cni_version: Str = OLDEST
    name: Str
    type: Str = ""
    ipam: IpamConf = Field(default_factory=IpamConf)
    dns: DnsConf = Field(default_factory=DnsConf)
    args: Args = Field(default_factory=Args)


def decode_object(text: bytes, what: str) -> dict[str, Any]:
    """Read one JSON object; `what` names it in errors. Raises CniError 6, never anything else.

    Invalid UTF-8 and halves of surrogate pairs are replaced, NaN and Infinity are refused, as in Go.
    """
    try:
        value = _DECODER.decode(text.decode(errors="replace"))
        if b"\\u" in text:
            value = _without_halves(value)
    except (ValueError, RecursionError) as error:
        raise CniError(
            Code.DECODING_FAILURE, f"could not decode {what}: {error}", "it must be one JSON object"
        ) from error
    if not isinstance(value, dict):
        from cni.json_types import json_type

        got = json_type(value)
        raise CniError(Code.DECODING_FAILURE, f"could not decode {what}: it must be an object, got {got}")
    return value


def wrong_type(key: str, wanted: str, value: object, code: Code = Code.DECODING_FAILURE) -> CniError:
    """Return the error for a key whose value has another JSON type; code 6 for keys of the specification."""
    from cni.json_types import json_type

    doing = "could not decode network config: " if code == Code.DECODING_FAILURE else ""
    return CniError(
        code,
        f'{doing}"{key}" must be {wanted}, got {json_type(value)}',
        f'Correct "{key}" in the network\'s file.',
    )


def _without_halves(value: Any) -> Any:
    """Replace what an escape of half a surrogate pair makes of a text, which no encoding has."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_without_halves(each) for each in value]
    if isinstance(value, dict):
        return {_without_halves(key): _without_halves(each) for key, each in value.items()}
    return value


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def read(model: type[M], value: object, prefix: str = "") -> M:
    """Validate a decoded JSON value. Raises CniError 7 that names field, value and what is allowed.

    Raises CniError 6 for a wrong JSON type of a key that the specification defines, as the Go library does.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        # Only a configuration that is refused needs it.
        from cni.conf_errors import refusal

        raise refusal(model, error, prefix) from error


# Keys that belong to the spec or to the runtime. The plugin's model need not have them.
SPEC_KEYS = frozenset(
    {
        "args",
        "capabilities",
        "cni.dev/attachments",
        "cni.dev/valid-attachments",
        "cniVersion",
        "cniVersions",
        "disableCheck",
        "disableGC",
        "dns",
        "ipam",
        "loadOnlyInlinedPlugins",
        "name",
        "plugins",
        "prevResult",
        "runtimeConfig",
        "type",
    }
)
_FOLDED_SPEC_KEYS = frozenset(key.lower() for key in SPEC_KEYS)
# Objects whose keys others choose.
_FOREIGN = frozenset({"args", "runtime_config"})


class Unread(NamedTuple):
    """A key that the plugin does not read: the object it is in ("" or "ipam"), and the keys known there."""

    where: str
    key: str
    known: frozenset[str]


def _list_unread(model: Model, where: str = "") -> list[Unread]:
    kind = type(model)
    found = []
    if extra := model.model_extra:
        unread = [key for key in extra if where or key.lower() not in _FOLDED_SPEC_KEYS]
        # The keys beside `ipam.type` are the IPAM plugin's, which looks at them itself.
        if unread and not (kind is IpamConf and "type" in model.model_fields_set):
            known = _exact_keys(kind) | (frozenset() if where else SPEC_KEYS)
            found = [Unread(where, key, known) for key in unread]
    for name, key in _nested(kind):
        if name in model.model_fields_set:
            found += _list_unread_within(getattr(model, name), f"{where}.{key}" if where else key)
    return found


@cache
def _nested(kind: type[Model]) -> tuple[tuple[str, str], ...]:
    """Return the fields that hold models, each with its key, but for those whose keys others choose."""
    fields = kind.model_fields.items()
    return tuple(
        (name, field.alias or name)
        for name, field in fields
        if name not in _FOREIGN and _holds_models(field.annotation)
    )


def _holds_models(annotation: object) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return True
    return any(map(_holds_models, get_args(annotation)))


def _list_unread_within(value: object, where: str) -> list[Unread]:
    if isinstance(value, Model):
        return _list_unread(value, where)
    if isinstance(value, tuple):
        return [found for each in value for found in _list_unread_within(each, where)]
    return []


class Given:
    """A network configuration: decoded, which nobody changes, and as the models that have been asked for."""

    def __init__(self, text: bytes) -> None:
        self.document = decode_object(text, "network config")
        self._models: dict[type[Model], Model] = {}
        self._unread: dict[type[Model], tuple[Unread, ...]] = {}

    def read(self, model: type[M]) -> M:
        """Validate it as a plugin's configuration, once. Raises CniError 7."""
        found = self._models.get(model)
        if not isinstance(found, model):
            found = self._models[model] = read(model, self.document)
        return found

    def list_unread(self, model: type[M], plugin: str) -> tuple[Unread, ...]:
        """Return the keys that a plugin does not read, those of the spec and of the runtime excluded.

        An IPAM plugin gets the configuration of its caller, to which the keys outside of `ipam` belong.
        """
        found = self._unread.get(model)
        if found is None:
            read = self.read(model)
            is_ipam = isinstance(read, NetConf) and read.ipam.type == plugin
            found = tuple(each for each in _list_unread(read) if each.where or not is_ipam)
            self._unread[model] = found
        return found


def parse(text: bytes) -> Given:
    """Decode a network configuration. Raises CniError 6.

    A process that serves many calls gets the same text again with each container of a network, and an IPAM
    plugin gets that of the one which calls it: 0.3 ms of an ADD. What has a result in it is another one each
    time.
    """
    if len(text) > _KEPT_BYTES or b"prevResult" in text:
        return Given(text)
    return _kept(text)


@lru_cache(maxsize=16)
def _kept(text: bytes) -> Given:
    return Given(text)
