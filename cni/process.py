"""The one door to child processes: fixed argument lists, no shell, a time limit, stderr kept."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# A runtime may pass no PATH at all, or one without the folders for administration.
_FALLBACK_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Completed(NamedTuple):
    """A finished process; `status` is negative for a signal."""

    status: int
    stdout: bytes
    stderr: str


def find(name: str) -> str | None:
    """Give the path of a program from PATH or, failing that, from the usual system folders."""
    import shutil

    return shutil.which(name) or shutil.which(name, path=_FALLBACK_PATH)


def run(
    argv: Sequence[str],
    stdin: bytes = b"",
    *,
    timeout_s: float = 60,
    env: Mapping[str, str] | None = None,
    pass_stderr: bool = False,
) -> Completed:
    """Run a program to its end; `env` None means ours. `pass_stderr` lets it write to our stderr.

    Raises CniError 5 when it cannot be started, 11 when it takes longer than `timeout_s` seconds.
    """
    # It costs 20 ms to import, and most calls start no process.
    import subprocess

    try:
        done = subprocess.run(
            list(argv),
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=None if pass_stderr else subprocess.PIPE,
            env=dict(os.environ if env is None else env),
            timeout=timeout_s,
            check=False,
        )
    except OSError as error:
        raise CniError(Code.IO_FAILURE, f"could not run {argv[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise CniError(
            Code.TRY_AGAIN,
            f"{argv[0]} did not end within {timeout_s:g} s and was killed",
            "something may hold a lock that it waits for",
        ) from error
    return Completed(done.returncode, done.stdout, (done.stderr or b"").decode(errors="replace").strip())
