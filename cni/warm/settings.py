"""How the warm server is set up on this machine: an optional file, read when a server starts."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from cni.conf import Int, Model, decode_object, read

FILE = Path("/etc/cni/pycni/warm.json")
# Time in seconds without a call after which a server elsewhere than in the host's namespaces ends: it keeps
# alive what it lives in, and whoever made that may be gone.
ELSEWHERE_S = 60


class Settings(Model):
    """The keys of `/etc/cni/pycni/warm.json`: `workers`, `calls`, `restSeconds` and so on."""

    # Nobody else's keys are in this file: an unknown one is a mistake.
    model_config = ConfigDict(extra="forbid")

    workers: Int = Field(default=4, ge=1, le=32)
    """Workers that wait for a call; more are made while calls come, up to 64."""

    calls: Int = Field(default=256, ge=1)
    """Calls that one worker serves before it is replaced; 1 makes every worker single-use."""

    rest_seconds: Int = Field(default=30, ge=1)
    """Time without a call after which workers that have served some are replaced: new ones are smaller."""

    idle_seconds: Int = Field(default=600, ge=1)
    """Time without a call after which the server ends; where nothing is said, `ELSEWHERE_S` for some."""

    answer_del: Literal["gone", "ack"] = "gone"
    """When DEL goes on: as soon as the kernel has told that the link is gone, or when it has acknowledged
    the removal, 17 to 20 ms later. A caller's own PYCNI_DEL comes before this."""


def load() -> Settings:
    """Read the file; the defaults when there is none. Raises CniError 6 or 7 for what is wrong in it."""
    # Of a FIFO there would be no end.
    if not FILE.is_file():
        return Settings()
    try:
        text = FILE.read_bytes()
    except OSError:
        return Settings()
    return read(Settings, decode_object(text, str(FILE)))


def idle_s(setup: Settings) -> int:
    """Give the time in seconds without a call after which this server ends."""
    if "idle_seconds" in setup.model_fields_set or _is_at_home():
        return setup.idle_seconds
    return ELSEWHERE_S


def _is_at_home() -> bool:
    """Tell whether this process is in the namespaces of the first one that it can see."""
    try:
        return all(
            Path(f"/proc/1/ns/{kind}").readlink() == Path(f"/proc/self/ns/{kind}").readlink()
            for kind in ("net", "mnt")
        )
    except OSError:
        return False
