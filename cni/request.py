"""What the runtime asks: the CNI_* variables of one call, checked (CNI spec 1.1.0, section 2)."""

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
# One with which there is nothing to look at closer.
_USUAL_IFNAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]{0,14}")


class Verb(StrEnum):
    """CNI_COMMAND."""

    ADD = "ADD"
    CHECK = "CHECK"
    DEL = "DEL"
    GC = "GC"
    STATUS = "STATUS"
    VERSION = "VERSION"
    # This suite's own, which any other plugin refuses without having done anything.
    GC_PLAN = "PYCNI_GC_PLAN"
    REPAIR = "PYCNI_REPAIR"
    LINT = "PYCNI_LINT"
    # The spec's verbs without the spec's minimum version of the configuration.
    CHECK_ANY = "PYCNI_CHECK"
    GC_ANY = "PYCNI_GC"
    STATUS_ANY = "PYCNI_STATUS"


# A verb of the spec, and the command for it that this suite answers for every version.
ANY_VERSION = {Verb.CHECK: Verb.CHECK_ANY, Verb.GC: Verb.GC_ANY, Verb.STATUS: Verb.STATUS_ANY}
OWN_VERBS = frozenset({Verb.GC_PLAN, Verb.REPAIR, Verb.LINT, *ANY_VERSION.values()})
ATTACHMENT_VERBS = frozenset({Verb.ADD, Verb.CHECK, Verb.DEL, Verb.REPAIR, Verb.CHECK_ANY})
GC_VERBS = frozenset({Verb.GC, Verb.GC_PLAN, Verb.GC_ANY})

# Which variable which verb needs, in the order in which missing ones are listed.
REQUIRED_BY = {
    "CNI_COMMAND": frozenset(Verb),
    "CNI_CONTAINERID": ATTACHMENT_VERBS,
    "CNI_NETNS": frozenset({Verb.ADD, Verb.CHECK, Verb.REPAIR, Verb.CHECK_ANY}),
    "CNI_IFNAME": ATTACHMENT_VERBS,
    "CNI_PATH": frozenset(Verb) - {Verb.VERSION},
}


class Attachment(NamedTuple):
    """A container's link on a network, as runtimes name it."""

    container_id: str
    ifname: str


# A tuple: made anew several times in each call, in a tenth of a data class's time.
class Request(NamedTuple):
    """One call of a plugin. `container_id`, `netns` and `ifname` are "" where the verb has none.

    `version` is the configuration's, `prev_result` is parsed already. `valid_attachments` is what GC must
    keep: None when the key is absent from the configuration, which is not the same as an empty set. `stdin`
    and `env` are what came in, byte for byte, for delegates.
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
        """The (container ID, ifname) pair of this call."""
        return Attachment(self.container_id, self.ifname)

    def required_prev_result(self) -> Result:
        """Give prevResult; raises CniError 7 when the runtime did not send one."""
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
        """Give those of CNI_ARGS that are named; raises CniError 4 for others unless IgnoreUnknown is set."""
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
    """Give the error for a CNI_COMMAND that a plugin does not know."""
    known = ", ".join(verb for verb in Verb if verb not in OWN_VERBS)
    return CniError(Code.INVALID_ENVIRONMENT, f"unknown CNI_COMMAND: {command}", f"it is one of: {known}")


def _split_path(env: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(filter(None, env.get("CNI_PATH", "").split(":")))


def check_name(text: str, code: Code, msg: str) -> None:
    """Raise a CniError unless `text` is made as container IDs and network names must be."""
    if not NAME.fullmatch(text):
        raise CniError(
            code, msg, f'"{text}" must start with a letter or digit and go on with those, "_", "." or "-"'
        )


def check_ifname(ifname: str) -> None:
    """Raise CniError 4 unless the kernel would take the name for a link, and texts can have it."""
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
    """Read CNI_ARGS ("K=V;K=V") into those keys that are known; of duplicates the last one wins.

    Raises CniError 4 for what is no pair, and for unknown keys unless IgnoreUnknown is 1 or true.
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
