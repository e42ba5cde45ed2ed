"""Sysctls of the container: their keys, the list of allowed ones, and their values in the kernel."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code
from cni.kernel import sysctl
from cni_tuning.plan import duplicate, refuse_duplicates

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cni.kernel.netns import Netns
    from cni.request import Request
    from cni_tuning.conf import TuningConf

ALLOW_LIST = Path("/etc/cni/tuning/allowlist.conf")
# POSIX classes, which Go's regular expressions have and Python's do not.
_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "digit": "0-9",
    "lower": "a-z",
    "upper": "A-Z",
    "word": r"\w",
    "xdigit": "0-9A-Fa-f",
}


class Setting(NamedTuple):
    """A sysctl to set: its key as the configuration has it, its key in the kernel, and the value."""

    text: str
    key: str
    value: str

    @property
    def content(self) -> str:
        """The text to write. The kernel ignores a write of nothing; an empty line empties a list."""
        return self.value or "\n"


def list_settings(conf: TuningConf, request: Request) -> tuple[Setting, ...]:
    """Return the sysctls to set, those of `args.cni` last. Raise CniError 7 for one that is not allowed."""
    own, more = conf.sysctl, conf.args.cni.sysctl
    if own:
        refuse_duplicates(request.stdin)
    if own or more:
        _check_allowed([*own, *more])
    found: dict[str, Setting] = {}
    for text, value in own.items():
        key = sysctl.parse_key(text, request.ifname)
        if key in found:
            # In two spellings: with dots and with slashes.
            raise duplicate(text)
        found[key] = Setting(text, key, value)
    for text, value in more.items():
        key = sysctl.parse_key(text, request.ifname)
        found.pop(key, None)
        found[key] = Setting(text, key, value)
    return tuple(found.values())


def _check_allowed(texts: list[str]) -> None:
    patterns = read_allow_list()
    if patterns is None:
        return
    allowed = [_compile(each) for each in patterns]
    for text in texts:
        if not any(each.search(text) for each in allowed):
            raise CniError(
                Code.INVALID_CONFIG,
                f"Sysctl {text} is not allowed. Only the following sysctls are allowed: "
                f"[{' '.join(patterns)}]",
                f"Remove the sysctl from the network, or add a line to {ALLOW_LIST}.",
            )


def read_allow_list() -> list[str] | None:
    """Return the regular expressions of the allowed keys; None if the host has no such file.

    Raise CniError 7 if the file cannot be read: nobody knows what it allows.
    """
    try:
        lines = ALLOW_LIST.read_text().splitlines()
    except FileNotFoundError:
        if not ALLOW_LIST.is_symlink():
            return None
        raise _unreadable("it is a link to nothing") from None
    except (OSError, ValueError) as error:
        raise _unreadable(str(getattr(error, "strerror", None) or error).lower()) from error
    return [line.strip() for line in lines if line.strip()]


def _unreadable(reason: str) -> CniError:
    return CniError(
        Code.INVALID_CONFIG,
        f"could not read the allowed sysctls from {ALLOW_LIST}: {reason}",
        "Correct the file. Without it every sysctl of the network is allowed.",
    )


def _compile(pattern: str) -> re.Pattern[str]:
    """Compile a line of the allow list, written for the regular expressions of Go."""
    text = re.sub(r"\[:(\w+):\]", lambda match: _CLASSES.get(match[1], match[0]), pattern)
    try:
        return re.compile(text.replace(r"\z", r"\Z"), re.ASCII)
    except re.error as error:
        raise CniError(
            Code.INVALID_CONFIG,
            f'"{pattern}" in {ALLOW_LIST} is not a regular expression: {error}',
            "Correct the line.",
        ) from None


def read(ns: Netns, key: str) -> str | None:
    """Return the value of a key in a namespace; None if it is not there or cannot be read."""
    with ns.entered():
        return sysctl.read_configured(key)


def read_all(ns: Netns, keys: Iterable[str]) -> dict[str, str | None]:
    """Return the values of keys in a namespace, as `read` does, by one move to it."""
    with ns.entered():
        return {key: sysctl.read_configured(key) for key in keys}


def write(ns: Netns, key: str, content: str) -> None:
    """Set a key in a namespace unless it has the value. Raise CniError 100."""
    with ns.entered():
        sysctl.ensure_configured(key, content)


def write_all(ns: Netns, settings: Sequence[Setting]) -> dict[str, str | None]:
    """Set sysctls in a namespace, and return the values that the kernel shows then. Raise CniError 100."""
    with ns.entered():
        for each in settings:
            sysctl.ensure_configured(each.key, each.content)
        return {each.key: sysctl.read_configured(each.key) for each in settings}


def is_equal(one: str | None, other: str | None) -> bool:
    """Compare two values; the kernel separates numbers by tabs, users do by spaces."""
    if one is None or other is None:
        return one is other
    return one.split() == other.split()
