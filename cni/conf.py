"""The keys that all plugin configurations share, and the base classes for a plugin's own keys.

Models are pure: they read nothing but the JSON that they are made from. Keys match in any case and JSON null
means "not given", as in the Go library, because runtimes rely on it. Unknown keys are kept. A plugin's
model derives from `NetConf`, its nested objects from `Model`.
"""

from __future__ import annotations

import json
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, TypeVar, get_args

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
# Bounded numbers: a value outside is CniError 7, which names the key and the bounds.
# An unsigned 32-bit value.
Unsigned = Annotated[StrictInt, Field(ge=0, le=0xFFFFFFFF)]
# 0 leaves the MTU to the kernel. veth pairs and bridges have at most 65535; a dummy link may have more.
Mtu = Annotated[StrictInt, Field(ge=0, le=0xFFFF)]
# 0 is no VLAN.
VlanId = Annotated[StrictInt, Field(ge=0, le=4094)]
Port = Annotated[StrictInt, Field(ge=1, le=0xFFFF)]
PrefixLength = Annotated[StrictInt, Field(ge=0, le=128)]

M = TypeVar("M", bound="Model")
N = TypeVar("N", bound="NetConf")


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


# A longer configuration is not cached.
_CACHED_BYTES = 1 << 14


class Model(BaseModel):
    """A JSON object of a configuration; field `is_gateway` is the key `isGateway`, in any case."""

    model_config = ConfigDict(frozen=True, extra="allow", alias_generator=to_camel, populate_by_name=False)

    @model_validator(mode="before")
    @classmethod
    def _fold_keys(cls, data: object) -> object:
        """Match keys in any case and drop nulls. If a key occurs in several spellings, the last one wins."""
        if not isinstance(data, dict):
            return data
        aliases = _folded_aliases(cls)
        if data.keys() <= _exact_keys(cls) and None not in data.values():
            return data
        return {aliases.get(key.lower(), key): value for key, value in data.items() if value is not None}


@cache
def _folded_aliases(model: type[Model]) -> dict[str, str]:
    """Return the keys of a model, each by its lower-case form."""
    aliases = ((field.alias or name) for name, field in model.model_fields.items())
    return {alias.lower(): alias for alias in aliases}


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

    # Keys of the plugin that its DEL reads, such as "ipMasq" or "ipam.dataDir". DEL ignores refused values of
    # other keys. None: DEL refuses what ADD refuses.
    delete_reads: ClassVar[frozenset[str] | None] = None

    cni_version: Str = OLDEST
    name: Str
    type: Str = ""
    ipam: IpamConf = Field(default_factory=IpamConf)
    dns: DnsConf = Field(default_factory=DnsConf)
    args: Args = Field(default_factory=Args)


def decode_object(text: bytes, document_name: str) -> dict[str, Any]:
    """Return a JSON object, decoded; `document_name` names it in errors. Raise CniError 6 and nothing else.

    Invalid UTF-8 and lone surrogates are replaced, NaN and Infinity are refused, as in Go.
    """
    try:
        value = _DECODER.decode(text.decode(errors="replace"))
        if b"\\u" in text:
            value = _without_surrogates(value)
    except (ValueError, RecursionError) as error:
        raise CniError(
            Code.DECODING_FAILURE, f"could not decode {document_name}: {error}", "It must be one JSON object."
        ) from error
    if not isinstance(value, dict):
        from cni.json_types import json_type  # Only a refused document needs it.

        got = json_type(value)
        raise CniError(
            Code.DECODING_FAILURE, f"could not decode {document_name}: it must be an object, got {got}"
        )
    return value


def wrong_type(key: str, wanted: str, value: object, code: Code = Code.DECODING_FAILURE) -> CniError:
    """Return the error for a key whose value has another JSON type; code 6 for keys of the specification."""
    from cni.json_types import json_type  # Only a refused document needs it.

    doing = "could not decode network config: " if code == Code.DECODING_FAILURE else ""
    return CniError(
        code,
        f'{doing}"{key}" must be {wanted}, got {json_type(value)}',
        f'Correct "{key}" in the network\'s file.',
    )


def _without_surrogates(value: Any) -> Any:
    """Replace lone surrogates (from escapes such as "ud800"), which cannot be encoded."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_without_surrogates(each) for each in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(each) for key, each in value.items()}
    return value


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def read(model: type[M], value: object, prefix: str = "") -> M:
    """Return a decoded JSON value as a model. Raise CniError 7 that names the key and the allowed values.

    Raise CniError 6 for a wrong JSON type of a key that the specification defines, as the Go library does.
    `prefix` is the path of the value in errors, such as "prevResult".
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        # Only a configuration that is refused needs it.
        from cni.conf_errors import refusal

        raise refusal(model, error, prefix) from error


# Keys of the spec and of the runtime (CNI spec 1.1.0, section 1). A plugin's model need not have them.
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
# Objects whose keys the user or the runtime chooses.
_FOREIGN = frozenset({"args", "runtime_config"})


class Unread(NamedTuple):
    """A key that no model reads. `where` is its object ("" or "ipam"), `known` the object's keys."""

    where: str
    key: str
    known: frozenset[str]


def _list_unread(model: Model, where: str = "") -> list[Unread]:
    kind = type(model)
    found = []
    if extra := model.model_extra:
        unread = [key for key in extra if where or key.lower() not in _FOLDED_SPEC_KEYS]
        # The keys beside `ipam.type` are the IPAM plugin's, which checks them itself.
        if unread and not (kind is IpamConf and "type" in model.model_fields_set):
            known = _exact_keys(kind) | (frozenset() if where else SPEC_KEYS)
            found = [Unread(where, key, known) for key in unread]
    for name, key in _nested(kind):
        if name in model.model_fields_set:
            found += _list_unread_within(getattr(model, name), f"{where}.{key}" if where else key)
    return found


@cache
def _nested(kind: type[Model]) -> tuple[tuple[str, str], ...]:
    """Return the fields that hold models, each with its key, except those in `_FOREIGN`."""
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
    """A network configuration, decoded, and as the models that plugins have asked for. It is read-only."""

    def __init__(self, text: bytes) -> None:
        self.document = decode_object(text, "network config")
        self._models: dict[type[Model], Model] = {}
        self._unread: dict[type[Model], tuple[Unread, ...]] = {}

    def read(self, model: type[M]) -> M:
        """Return the configuration as a plugin's model, validated once. Raise CniError 6 or 7."""
        parsed = self._models.get(model)
        if not isinstance(parsed, model):
            parsed = self._models[model] = read(model, self.document)
        return parsed

    def read_for_delete(self, model: type[N]) -> N:
        """Return the configuration for DEL, without refused values that DEL does not need.

        The list may have been edited after ADD, and what ADD has made must go. Raise CniError 6 or 7.
        """
        try:
            return self.read(model)
        except CniError:
            if model.delete_reads is None:
                raise
            from cni.conf_errors import leave_out_refused  # Only a refused configuration needs it.

            return read(model, leave_out_refused(model, self.document, model.delete_reads, _FOLDED_SPEC_KEYS))

    def list_unread(self, model: type[M], plugin: str) -> tuple[Unread, ...]:
        """Return the keys that a plugin does not read, except those of the spec and of the runtime.

        An IPAM plugin gets the configuration of its caller. The keys outside of `ipam` are the caller's.
        """
        unread = self._unread.get(model)
        if unread is None:
            parsed = self.read(model)
            is_ipam = isinstance(parsed, NetConf) and parsed.ipam.type == plugin
            unread = tuple(each for each in _list_unread(parsed) if each.where or not is_ipam)
            self._unread[model] = unread
        return unread


def parse(text: bytes) -> Given:
    """Decode a network configuration. Raise CniError 6.

    Parsed configurations are cached: a worker gets the same text with each container of a network, and an
    IPAM plugin gets the text of its caller. This saves 0.3 ms of an ADD. A text with a result differs each
    time and is not cached.
    """
    if len(text) > _CACHED_BYTES or b"prevResult" in text:
        return Given(text)
    return _parse_once(text)


@lru_cache(maxsize=16)
def _parse_once(text: bytes) -> Given:
    return Given(text)
