"""The request of a runtime: the CNI_* variables of one call, checked (CNI spec 1.1.0, section 2)."""

from __future__ import annotations

import re
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from cni.result import Result

    # Runs the plugin at a path with an environment and stdin; gives exit status and stdout.
    DelegateRunner = Callable[[Path, Mapping[str, str], bytes], tuple[int, bytes]]

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
IFNAME_BYTES = 15
# Fast path: names that need no further checks.
_USUAL_IFNAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]{0,14}")


class Verb(StrEnum):
    """CNI_COMMAND."""

    ADD = "ADD"
    CHECK = "CHECK"
    DEL = "DEL"
    GC = "GC"
    STATUS = "STATUS"
    VERSION = "VERSION"
    # Verbs of this suite. Any other plugin refuses them before it does anything.
    GC_PLAN = "PYCNI_GC_PLAN"
    REPAIR = "PYCNI_REPAIR"
    LINT = "PYCNI_LINT"
    # Several calls in one process, see `cni.operations.calls`.
    CALLS = "PYCNI_CALLS"
    # The spec's verbs without the spec's minimum version of the configuration.
    CHECK_ANY = "PYCNI_CHECK"
    GC_ANY = "PYCNI_GC"
    STATUS_ANY = "PYCNI_STATUS"


# A verb of the spec, and the command for it that this suite answers for every version.
ANY_VERSION = {Verb.CHECK: Verb.CHECK_ANY, Verb.GC: Verb.GC_ANY, Verb.STATUS: Verb.STATUS_ANY}
OWN_VERBS = frozenset({Verb.GC_PLAN, Verb.REPAIR, Verb.LINT, Verb.CALLS, *ANY_VERSION.values()})
ATTACHMENT_VERBS = frozenset({Verb.ADD, Verb.CHECK, Verb.DEL, Verb.REPAIR, Verb.CHECK_ANY})
GC_VERBS = frozenset({Verb.GC, Verb.GC_PLAN, Verb.GC_ANY})

# The verbs that need a variable, in the order in which errors list missing variables.
REQUIRED_BY = {
    "CNI_COMMAND": frozenset(Verb),
    "CNI_CONTAINERID": ATTACHMENT_VERBS,
    "CNI_NETNS": frozenset({Verb.ADD, Verb.CHECK, Verb.REPAIR, Verb.CHECK_ANY}),
    "CNI_IFNAME": ATTACHMENT_VERBS,
    "CNI_PATH": frozenset(Verb) - {Verb.VERSION},
}


class Attachment(NamedTuple):
    """The key by which runtimes name an attachment of a network.

    Attributes:
        container_id: The value of CNI_CONTAINERID.
        ifname: The value of CNI_IFNAME.
    """

    container_id: str
    ifname: str


# A tuple: it is copied several times in each call, in a tenth of a data class's time.
class Request(NamedTuple):
    """One call of a plugin. `container_id`, `netns` and `ifname` are "" if the verb has none.

    Attributes:
        verb: The value of CNI_COMMAND.
        container_id: The value of CNI_CONTAINERID.
        netns: The value of CNI_NETNS, the path of the container's namespace.
        ifname: The value of CNI_IFNAME, the name of the container's link.
        args: The value of CNI_ARGS, see `known_args`.
        path: The folders of CNI_PATH.
        version: The configuration's `cniVersion`.
        prev_result: The result of the plugins before in the chain, parsed. None if the runtime sent none.
        valid_attachments: The attachments that GC must keep. None if the configuration has no such key,
            which differs from an empty set.
        stdin: The configuration as it was read, for delegates.
        env: The environment, for delegates.
        run_delegate: Runs a plugin of this suite in the same process. None if every delegate is executed.
    """

    verb: Verb
    container_id: str = ""
    netns: str = ""
    ifname: str = ""
    args: str = ""
    path: tuple[str, ...] = ()
    version: str = ""
    prev_result: Result | None = None
    valid_attachments: frozenset[Attachment] | None = None
    stdin: bytes = b""
    env: Mapping[str, str] = MappingProxyType({})
    run_delegate: DelegateRunner | None = None

    @property
    def attachment(self) -> Attachment:
        """The attachment of this call."""
        return Attachment(self.container_id, self.ifname)

    def required_prev_result(self) -> Result:
        """Return prevResult. Raise CniError 7 if the runtime has sent none."""
        if self.prev_result is None:
            raise CniError(
                Code.INVALID_CONFIG,
                "Required prevResult missing",
                f"{self.verb} needs the result of the plugins before it in the chain",
            )
        return self.prev_result

    def required_valid(self) -> frozenset[Attachment]:
        """Return the attachments that GC must keep. Raise CniError 7 if the runtime has sent no list."""
        if self.valid_attachments is None:
            raise CniError(Code.INVALID_CONFIG, "Required cni.dev/valid-attachments missing")
        return self.valid_attachments

    def known_args(self, *known: str) -> dict[str, str]:
        """Return the known CNI_ARGS. Raise CniError 4 for others unless IgnoreUnknown is set."""
        return parse_args(self.args, known)


def from_env(env: Mapping[str, str], run_delegate: DelegateRunner | None = None) -> Request:
    """Read and check the CNI_* variables. Raises CniError 4 naming the variables that are wrong."""
    verb = _verb(env)
    missing = [name for name, verbs in REQUIRED_BY.items() if verb in verbs and not env.get(name)]
    if missing:
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            f"required env variables [{','.join(missing)}] missing",
            f"the runtime must set them for {verb}",
        )
    if verb not in ATTACHMENT_VERBS:
        return Request(verb, path=_split_path(env), env=env, run_delegate=run_delegate)
    check_name(env["CNI_CONTAINERID"], Code.INVALID_ENVIRONMENT, "invalid characters in containerID")
    check_ifname(env["CNI_IFNAME"])
    return Request(
        verb,
        container_id=env["CNI_CONTAINERID"],
        netns=env.get("CNI_NETNS", ""),
        ifname=env["CNI_IFNAME"],
        args=env.get("CNI_ARGS", ""),
        path=_split_path(env),
        env=env,
        run_delegate=run_delegate,
    )


def _verb(env: Mapping[str, str]) -> Verb:
    command = env.get("CNI_COMMAND", "")
    if not command:
        raise CniError(Code.INVALID_ENVIRONMENT, "required env variables [CNI_COMMAND] missing")
    try:
        return Verb(command)
    except ValueError:
        raise unknown_verb(command) from None


def unknown_verb(command: str) -> CniError:
    """Return the error for a CNI_COMMAND that a plugin does not know."""
    known = ", ".join(verb for verb in Verb if verb not in OWN_VERBS)
    return CniError(Code.INVALID_ENVIRONMENT, f"unknown CNI_COMMAND: {command}", f"it is one of: {known}")


def _split_path(env: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(filter(None, env.get("CNI_PATH", "").split(":")))


def check_name(text: str, code: Code, msg: str) -> None:
    """Raise a CniError unless `text` is a valid container ID or network name."""
    if not NAME.fullmatch(text):
        raise CniError(
            code, msg, f'"{text}" must start with a letter or digit and go on with those, "_", "." or "-"'
        )


def check_ifname(ifname: str) -> None:
    """Raise CniError 4 unless ifname is a valid Linux interface name and valid UTF-8."""
    if _USUAL_IFNAME.fullmatch(ifname):
        return
    msg = details = ""
    if len(ifname.encode(errors="surrogateescape")) > IFNAME_BYTES:
        msg, details = "interface name is too long", "interface name should be less than 16 characters"
    elif ifname in {".", ".."}:
        msg = "interface name is . or .."
    elif any(char in "/:" or char.isspace() for char in ifname):
        msg = "interface name contains / or : or whitespace characters"
    elif any("\ud800" <= char <= "\udfff" for char in ifname):
        msg = "interface name is not UTF-8"
    if msg:
        raise CniError(Code.INVALID_ENVIRONMENT, msg, details or f'CNI_IFNAME is "{ifname}"')


def parse_args(text: str, known: tuple[str, ...]) -> dict[str, str]:
    """Return the known keys of CNI_ARGS ("K=V;K=V"). The last of several values wins.

    Raises CniError 4 for text that is no pair, and for unknown keys unless IgnoreUnknown is 1 or true.
    """
    pairs: dict[str, str] = {}
    for pair in text.split(";") if text else ():
        key, *values = pair.split("=")
        if len(values) != 1:
            raise CniError(Code.INVALID_ENVIRONMENT, f'ARGS: invalid pair "{pair}"', "CNI_ARGS is K=V;K=V")
        pairs[key] = values[0]
    ignore = _flag(pairs.pop("IgnoreUnknown", "0"))
    unknown = [f"{key}={value}" for key, value in pairs.items() if key not in known]
    if unknown and not ignore:
        listed = " ".join(f'"{each}"' for each in unknown)
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            f"ARGS: unknown args [{listed}]",
            f"known are {', '.join(known) or 'none'}; IgnoreUnknown=1 in CNI_ARGS lets others pass",
        )
    return {key: value for key, value in pairs.items() if key in known}


def _flag(text: str) -> bool:
    values = {"1": True, "true": True, "0": False, "false": False}
    if text.lower() not in values:
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            f'ARGS: error parsing value of pair "IgnoreUnknown={text}": '
            f"boolean unmarshal error: invalid input {text}",
            "it is 1, true, 0 or false",
        )
    return values[text.lower()]
