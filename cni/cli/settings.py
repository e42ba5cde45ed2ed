"""What a call of `pycni` takes from its environment: cnitool's variables, with their defaults."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cni.conf import decode_object
from cni.errors import CniError, Code
from cni.runtime.conflists import DEFAULT_FOLDER
from cni.runtime.derive import RuntimeArgs

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_PATH = "/opt/cni/bin"
DEFAULT_IFNAME = "eth0"
NETNS_FOLDER = "/run/netns"


@dataclass(frozen=True, slots=True)
class Settings:
    """Where plugins and networks are, and what plugins are told beyond container and netns.

    `args` and `capability_args` are None when the variable is not set.
    """

    env: Mapping[str, str]
    path: tuple[str, ...]
    conf_folder: Path
    ifname: str
    args: tuple[tuple[str, str], ...] | None
    capability_args: Mapping[str, Any] | None

    def runtime_args(self, netns: str) -> RuntimeArgs:
        """Give what identifies and describes the attachment of a namespace, as cnitool does."""
        path = find_netns(netns)
        return RuntimeArgs(container_id(path), path, self.ifname, self.args, self.capability_args)


def from_env(env: Mapping[str, str], ifname: str = "") -> Settings:
    """Read the variables; `ifname` is the option's value, "" without one. Raises CniError 4."""
    capability_args = env.get("CAP_ARGS")
    return Settings(
        env,
        tuple(filter(None, (env.get("CNI_PATH") or DEFAULT_PATH).split(":"))),
        Path(env.get("NETCONFPATH") or DEFAULT_FOLDER),
        ifname or env.get("CNI_IFNAME") or DEFAULT_IFNAME,
        _parse_args(env["CNI_ARGS"]) if env.get("CNI_ARGS") else None,
        _parse_capability_args(capability_args) if capability_args else None,
    )


def find_netns(netns: str) -> str:
    """Return the absolute path of a namespace; a name without a slash is one of /run/netns.

    A name that is not there is a path from the working directory if such a file exists, as for cnitool.
    """
    named = f"{NETNS_FOLDER}/{netns}"
    if not netns or "/" in netns or netns in {".", ".."}:
        return absolute(netns)
    return named if os.path.lexists(named) or not os.path.lexists(netns) else absolute(netns)


def require_netns(netns: str) -> None:
    """Raise CniError 8 naming what was looked for unless a namespace's name or path leads to something."""
    found = find_netns(netns)
    if "/" not in netns and not os.path.lexists(found):
        raise CniError(
            Code.INVALID_NETNS,
            f'there is no network namespace "{netns}"',
            f"looked for {found} and {absolute(netns)}; make it with ip netns add, or give a path",
        )


def absolute(netns: str) -> str:
    """Give the absolute path, cleaned by its text alone: links are not followed. Raises CniError 4."""
    if not netns:
        raise CniError(Code.INVALID_ENVIRONMENT, "the netns path is empty", "it is a path as /run/netns/NAME")
    path = os.path.abspath(netns)  # noqa: PTH100 - pathlib's one keeps "..", the ID needs it resolved
    # POSIX lets two slashes at the start stand.
    return f"/{path.lstrip('/')}"


def container_id(netns: str) -> str:
    """Give the container ID that stands for an absolute netns path."""
    return f"cnitool-{hashlib.sha512(os.fsencode(netns)).hexdigest()[:20]}"


def _parse_args(text: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for pair in text.split(";"):
        key, *values = pair.split("=")
        if len(values) != 1 or not key or not values[0]:
            raise CniError(
                Code.INVALID_ENVIRONMENT, f'invalid CNI_ARGS pair "{pair}"', "CNI_ARGS is KEY=VALUE;KEY=VALUE"
            )
        pairs.append((key, values[0]))
    return tuple(pairs)


def _parse_capability_args(text: str) -> Mapping[str, Any]:
    try:
        return decode_object(os.fsencode(text), "CAP_ARGS")
    except CniError as error:
        hint = 'such as {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}'
        raise CniError(Code.INVALID_ENVIRONMENT, error.msg, hint) from error
