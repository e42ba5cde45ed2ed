"""Reach the helper of a plugin, and start it if it does not run.

    helper = Helper("dhcp", "cni_dhcp.serve")
    helper.wake()          # ADD: starts it if it does not run; raises CniError 11 if that fails
    helper.is_running()    # STATUS

A helper knows nothing that the records of the attachments do not hold, so a request has no content: it means
"look at the records". A helper of another build ends, and one of the caller's build takes its place.

The caller starts the helper by two forks, so that it is no child of the caller, and executes the interpreter
again, so that it has nothing of the caller: no descriptor, no signal handler, no memory.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import NamedTuple, NoReturn

from cni.errors import CniError, Code
from cni.service import peer
from cni.state import boot, files
from cni.state.lock import locked

FOLDER = Path("/run/pycni/helpers")
# The first argument of a helper, for people and for tests that list processes.
OPTION = "--pycni-helper"
LISTEN_FD = 3
_BACKLOG = 128
_ANSWER_WITHIN_S = 5.0
_STARTS = 3
_LARGEST = 1 << 10
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Helper(NamedTuple):
    """The helper `name`, whose module has a function `tick`; it ends `linger_s` seconds after its work.

    `version` replaces what is known of the module's file as the name of the build.
    """

    name: str
    module: str
    linger_s: float = 60
    version: str = ""

    @property
    def key(self) -> str:
        """The digits that callers of the same user and the same namespaces have in common."""
        return hashlib.sha256(peer.own_key().encode()).hexdigest()[:16]

    @property
    def path(self) -> str:
        """The path of the socket."""
        return f"{FOLDER}/{self.name}-{self.key}.sock"

    def is_running(self) -> bool:
        """Return whether a helper listens."""
        connection = _connect(self.path)
        if connection is None:
            return False
        connection.close()
        return True

    def wake(self) -> None:
        """Let the helper look at the records; start it if it does not run. Raise CniError 11 or 106."""
        build = self.version or _build(self.module)
        for _ in range(_STARTS):
            connection = _connect(self.path) or self._start(build)
            with connection:
                if _ask(connection, build):
                    return
        raise CniError(
            Code.TRY_AGAIN,
            f"the helper of {self.name} does not answer at {self.path}",
            "Call the command again. The helper's messages are in the system's log.",
        )

    def _start(self, build: str) -> socket.socket:
        """Start the helper, unless another call does so; return a connection to it."""
        files.ensure_directory(FOLDER.parent)
        boot.drop_earlier(FOLDER.parent)
        files.ensure_directory(FOLDER)
        with locked(f"{self.path}.lock", _ANSWER_WITHIN_S):
            if connection := _connect(self.path):
                return connection
            files.remove(self.path)
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
                _bind(listener, self.path)
                _start_detached(listener.fileno(), self._command(build))
                connection = _connect(self.path)
        if connection is None:
            raise CniError(Code.TRY_AGAIN, f"could not connect to {self.path}", "Call the command again.")
        return connection

    def _command(self, build: str) -> list[str]:
        arguments = (self.module, self.path, build, self.linger_s)
        program = (
            f"import sys; sys.path[:] = {sys.path!r}; from cni.service import loop; loop.run(*{arguments!r})"
        )
        return [sys.executable, "-ISB", "-c", program, OPTION, self.name]


def _build(module: str) -> str:
    """Return what identifies the build that a module is of: its file."""
    spec = importlib.util.find_spec(module)
    path = spec.origin if spec and spec.origin else module
    try:
        return f"{path} {Path(path).stat().st_mtime_ns}"
    except OSError:
        return path


def _connect(path: str) -> socket.socket | None:
    """Return a connection to a helper that is an equal; None if nothing listens."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(_ANSWER_WITHIN_S)
    try:
        connection.connect(path)
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    except OSError:
        connection.close()
        return None
    if int.from_bytes(credentials[4:8], sys.byteorder) != os.geteuid():
        connection.close()
        raise CniError(Code.STORE, f"could not use {path}: another user listens", "Remove the file.")
    return connection


def _ask(connection: socket.socket, build: str) -> bool:
    """Return whether a helper of this build answers; False if it has ended, or ends now."""
    try:
        connection.send(json.dumps({"build": build}).encode())
        answer = connection.recv(_LARGEST)
        return bool(answer) and json.loads(answer).get("build") == build
    except (OSError, ValueError, AttributeError):
        return False


def _bind(listener: socket.socket, path: str) -> None:
    before = os.umask(0o177)
    try:
        listener.bind(path)
        listener.listen(_BACKLOG)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CniError(Code.STORE, f"could not listen at {path}: {reason}") from error
    finally:
        os.umask(before)


def _start_detached(listener: int, command: list[str]) -> None:
    """Execute a program that is no child of this process and has nothing of it but the listening socket."""
    child = os.fork()
    if child == 0:
        _become(listener, command)
    os.waitpid(child, 0)


def _become(listener: int, command: list[str]) -> NoReturn:
    try:
        os.setsid()
        if os.fork() == 0:
            for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            null = os.open("/dev/null", os.O_RDWR)
            for fd in range(3):
                os.dup2(null, fd)
            os.dup2(listener, LISTEN_FD)
            os.closerange(LISTEN_FD + 1, os.sysconf("SC_OPEN_MAX"))
            os.umask(0o022)
            os.chdir("/")
            _reset_priority()
            os.execve(command[0], command, _environment())  # noqa: S606 - our own interpreter
    finally:
        os._exit(0)


def _reset_priority() -> None:
    """Reset priorities of the first caller, which must not last."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, 0)
        Path("/proc/self/oom_score_adj").write_text("0")
    except OSError:
        return


def _environment() -> dict[str, str]:
    """Return the environment of a helper: in a bundle the interpreter needs the libraries beside it."""
    tree = Path(sys.executable).parents[1]
    libraries = {"LD_LIBRARY_PATH": f"{tree}/lib"} if (tree / "lib/pycni.pyc").exists() else {}
    return {"PATH": _PATH, "LANG": "C.UTF-8"} | libraries
