"""Run one plugin executable for a runtime, and report failures in libcni's words."""

from __future__ import annotations

import errno
import json
import signal
import time
from typing import TYPE_CHECKING, Any

from cni.errors import CniError, Code
from cni.kernel.child import run
from cni.log import note

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cni.kernel.child import Completed

# An executable that is being overwritten in place cannot be executed (ETXTBSY).
_BUSY_TRIES = 6
_BUSY_PAUSE_S = 1.0
# Time for a plugin to undo its work after the timeout; it may wait for its IPAM plugin meanwhile.
_GRACE_S = 10.0


class UnavailableError(CniError):
    """The plugin's executable is missing or cannot be started; the plugin did not run."""


def run_plugin(executable: Path, env: Mapping[str, str], stdin: bytes, timeout_s: float) -> bytes:
    """Run a plugin. If it succeeds, return its stdout and copy its stderr.

    Raises the error object that it printed, CniError 999 if it failed without a valid one, UnavailableError 5
    if it cannot be executed, and 11 after `timeout_s` seconds. Then it gets SIGTERM, which undoes an ADD, and
    10 s later SIGKILL.
    """
    try:
        done = _run_when_not_busy(executable, env, stdin, timeout_s)
    except CniError as error:
        if isinstance(error.__cause__, OSError):
            raise UnavailableError(error.code, error.msg, error.details) from error
        raise
    if done.status != 0:
        raise _error_of(done)
    if done.stderr:
        note(done.stderr)
    return done.stdout


def _run_when_not_busy(executable: Path, env: Mapping[str, str], stdin: bytes, timeout_s: float) -> Completed:
    for _ in range(_BUSY_TRIES - 1):
        try:
            return run([str(executable)], stdin, env=env, timeout_s=timeout_s, grace_s=_GRACE_S)
        except CniError as error:
            if not (isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ETXTBSY):
                raise
        time.sleep(_BUSY_PAUSE_S)
    return run([str(executable)], stdin, env=env, timeout_s=timeout_s, grace_s=_GRACE_S)


def _error_of(done: Completed) -> CniError:
    stdout = done.stdout.decode(errors="replace")
    ending = _ending(done.status)
    if not stdout and not done.stderr:
        return CniError(Code.INTERNAL, f"netplugin failed with no error message: {ending}")
    if not stdout:
        return CniError(Code.INTERNAL, f"netplugin failed: {_quote(done.stderr)}: {ending}")
    try:
        return _parse_error(stdout, ending, done.stderr)
    except ValueError as error:
        return CniError(
            Code.INTERNAL,
            f"netplugin failed but error parsing its diagnostic message {_quote(stdout)}: {error}",
            f"stderr: {_quote(done.stderr)}" if done.stderr else "",
        )


def _parse_error(stdout: str, ending: str, stderr: str) -> CniError:
    """Return the error object that a plugin printed. A killed plugin may have printed a result: no "msg"."""
    document = json.loads(stdout)
    if not isinstance(document, dict):
        raise ValueError("it is not an object")  # noqa: TRY004 - one exception for all mistakes
    members: dict[str, Any] = {key.lower(): value for key, value in document.items() if value is not None}
    code, msg, details = members.get("code", 0), members.get("msg", ""), members.get("details", "")
    if not isinstance(code, int) or not isinstance(msg, str) or not isinstance(details, str):
        raise ValueError("code must be a number, msg and details must be strings")  # noqa: TRY004 - see above
    if not msg:
        msg = f"netplugin failed with no error message: {ending}"
        details = details or (f"stderr: {_quote(stderr)}" if stderr else "")
    return CniError(code or Code.INTERNAL, msg, details)


def _ending(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"signal: {signal.Signals(-status).name}"
    except ValueError:
        return f"signal: {-status}"


def _quote(text: str) -> str:
    """Return a text as one line of at most about 1000 characters."""
    return json.dumps(text if len(text) <= 1000 else f"{text[:1000]}...", ensure_ascii=False)
