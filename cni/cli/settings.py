"""Read the environment of `pycni`: cnitool's variables, with their defaults."""

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
    """The folders of plugins and networks, and the plugins' arguments other than container and netns.

    `args` and `capability_args` are None if the variable is not set.
    """

    env: Mapping[str, str]
    path: tuple[str, ...]
    conf_folder: Path
    ifname: str
    args: tuple[tuple[str, str], ...] | None
    capability_args: Mapping[str, Any] | None

    def runtime_args(self, netns: str) -> RuntimeArgs:
        """Return the arguments for the attachment of a namespace, as cnitool sets them."""
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
    """Return the absolute path of a namespace; a name without a slash is in /run/netns.

    If the name is not there, it is relative to the working directory if such a file exists, as in cnitool.
    """
    named = f"{NETNS_FOLDER}/{netns}"
    if not netns or "/" in netns or netns in {".", ".."}:
        return absolute(netns)
    return named if os.path.lexists(named) or not os.path.lexists(netns) else absolute(netns)


def require_netns(netns: str) -> None:
    """Raise CniError 8 if a namespace's name does not exist; the plugins check a path."""
    path = find_netns(netns)
    if "/" not in netns and not os.path.lexists(path):
        raise CniError(
            Code.INVALID_NETNS,
            f'there is no network namespace "{netns}"',
            f"Create it with ip netns add, or use a path; {path} and {absolute(netns)} do not exist.",
        )


def absolute(netns: str) -> str:
    """Return the absolute path, normalised without following links. Raises CniError 4."""
    if not netns:
        raise CniError(
            Code.INVALID_ENVIRONMENT, "the netns path is empty", "Use a path such as /run/netns/NAME."
        )
    path = os.path.abspath(netns)  # noqa: PTH100 - pathlib keeps "..", and the container ID needs it resolved
    # POSIX allows two slashes at the start.
    return f"/{path.lstrip('/')}"


def container_id(netns: str) -> str:
    """Return the container ID for an absolute netns path."""
    return f"cnitool-{hashlib.sha512(os.fsencode(netns)).hexdigest()[:20]}"


def _parse_args(text: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for pair in text.split(";"):
        key, *values = pair.split("=")
        if len(values) != 1 or not key or not values[0]:
            raise CniError(
                Code.INVALID_ENVIRONMENT,
                f'invalid CNI_ARGS pair "{pair}"',
                "Set CNI_ARGS to KEY=VALUE;KEY=VALUE.",
            )
        pairs.append((key, values[0]))
    return tuple(pairs)


def _parse_capability_args(text: str) -> Mapping[str, Any]:
    try:
        return decode_object(os.fsencode(text), "CAP_ARGS")
    except CniError as error:
        hint = 'Example: {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}'
        raise CniError(Code.INVALID_ENVIRONMENT, error.msg, hint) from error
