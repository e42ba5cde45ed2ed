"""The settings of the warm server on this machine: an optional file, which a server reads when it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from cni.conf import Int, Model, decode_object, read

FILE = Path("/etc/cni/pycni/warm.json")
# Idle timeout in seconds of a server outside the host's namespaces. It is short, because the server keeps its
# namespaces alive after their creator has removed them.
ELSEWHERE_S = 60


class Settings(Model):
    """The keys of `/etc/cni/pycni/warm.json`: `workers`, `calls`, `restSeconds` and so on."""

    # No other program has keys in this file: an unknown key is a mistake.
    model_config = ConfigDict(extra="forbid")

    workers: Int = Field(default=4, ge=1, le=32)
    """Number of idle workers; under load there are more, up to 64."""

    calls: Int = Field(default=256, ge=1)
    """Calls that one worker serves before it is replaced; 1 makes every worker single-use."""

    rest_seconds: Int = Field(default=30, ge=1)
    """Time without a call after which used workers are replaced: new ones need less memory."""

    idle_seconds: Int = Field(default=600, ge=1)
    """Time without a call after which the server ends. The default outside the host is `ELSEWHERE_S`."""

    answer_del: Literal["gone", "ack"] = "gone"
    """When DEL continues: as soon as the kernel reports that the link is gone, or when it has acknowledged
    the removal, 17 to 20 ms later. The caller's variable PYCNI_DEL overrides this."""


def load() -> Settings:
    """Read the file; return the defaults if there is none. Raises CniError 6 or 7 if it is invalid."""
    # Reading a FIFO would block.
    if not FILE.is_file():
        return Settings()
    try:
        text = FILE.read_bytes()
    except OSError:
        return Settings()
    return read(Settings, decode_object(text, str(FILE)))


def idle_s(settings: Settings) -> int:
    """Return the time in seconds without a call after which this server ends."""
    if "idle_seconds" in settings.model_fields_set or _is_on_host():
        return settings.idle_seconds
    return ELSEWHERE_S


def _is_on_host() -> bool:
    """Return whether this process is in the network and mount namespaces of process 1."""
    try:
        return all(
            Path(f"/proc/1/ns/{kind}").readlink() == Path(f"/proc/self/ns/{kind}").readlink()
            for kind in ("net", "mnt")
        )
    except OSError:
        return False
