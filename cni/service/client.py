"""Reach the helper of a plugin, and start it if it does not run.

    HELPER = Helper("dhcp", "cni_dhcp.serve")     # cni_dhcp/serve.py has HELPER, too
    HELPER.wake()          # ADD: starts it if it does not run; raises CniError 11 if that fails
    HELPER.is_running()    # STATUS

A helper knows nothing that the records of the attachments do not hold, so a request has no content: it means
"look at the records". A helper of another build hands its sockets over, and one of the caller's build takes
its place.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import socket
import sys
from pathlib import Path
from typing import NamedTuple

from cni.errors import CniError, Code
from cni.service import detach, message, peer, status
from cni.service.guard import LISTEN_FD
from cni.state import boot, files
from cni.state.lock import locked

FOLDER = Path("/run/pycni/helpers")
_BACKLOG = 128
_ANSWER_WITHIN_S = 5.0
_TRIES = 4


class _Answer(NamedTuple):
    """The answer of a helper, and the sockets that it has handed over, by name.

    "" is the request socket, which a unit keeps.
    """

    build: str
    is_unit: bool
    error: str
    sockets: dict[str, int]


class Helper(NamedTuple):
    """The helper `name`, whose module has a function `tick`; it ends `linger_s` seconds after its work.

    `memory_mib` limits its memory. `version` replaces what is known of the module's file as the name of the
    build.
    """

    name: str
    module: str
    linger_s: float = 60
    memory_mib: int = 64
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
        """Return whether the helper runs. It does not while its guard pauses after an error."""
        path = self.path.removesuffix(".sock") + status.SUFFIX
        return bool(status.holder(path)) and "helper" in status.read(path)

    def wake(self, *, until_done: bool = False) -> None:
        """Let the helper look at the records; start it if it does not run. Raise CniError 11 or 106.

        With `until_done` return when the helper has done what is due; raise CniError 11 if it could not.
        """
        build = self._build()
        connection = _connect(self.path)
        answer = _ask(connection, build, {}, wait=until_done) if connection else None
        if answer is None or answer.build != build:
            answer = self._start(build, until_done=until_done)
        if answer.error:
            raise CniError(Code.TRY_AGAIN, f"the helper of {self.name} has failed: {answer.error}")

    def execute(self) -> None:
        """Replace this process by the helper's guard, with the request socket that systemd has passed."""
        files.ensure_directory(FOLDER.parent)
        boot.drop_earlier(FOLDER.parent)
        detach.execute(self._command(self._build(), {}, is_unit=True), [LISTEN_FD])

    def _start(self, build: str, *, until_done: bool) -> _Answer:
        """Start the helper, unless another call does so, in place of one of another build."""
        files.ensure_directory(FOLDER.parent)
        boot.drop_earlier(FOLDER.parent)
        files.ensure_directory(FOLDER)
        takes, of_unit = True, dict[str, int]()
        with locked(f"{self.path}.lock", _ANSWER_WITHIN_S):
            try:
                for _ in range(_TRIES):
                    if (connection := _connect(self.path)) is None:
                        self._start_new(build)
                    elif answer := _ask(connection, build, of_unit, take=takes, wait=until_done):
                        if answer.build == build or (answer.is_unit and not takes):
                            return answer
                        # Systemd starts the installed build, and we accept it. It has these sockets from us.
                        takes = not answer.is_unit
                        if answer.is_unit:
                            of_unit |= answer.sockets
                        elif answer.sockets:
                            self._start_with(build, answer.sockets)
            finally:
                message.close(of_unit)
        raise CniError(
            Code.TRY_AGAIN,
            f"the helper of {self.name} does not answer at {self.path}",
            "Call the command again. The helper's messages are in the system's log.",
        )

    def _start_new(self, build: str) -> None:
        files.remove(self.path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            _bind(listener, self.path)
            detach.start(self._command(build, {}), [listener.fileno()])

    def _start_with(self, build: str, sockets: dict[str, int]) -> None:
        """Start the helper with the sockets of one of another build."""
        kept = {name: fd for name, fd in sockets.items() if name}
        detach.start(self._command(build, kept), [sockets[""], *kept.values()])
        message.close(sockets)

    def _command(self, build: str, sockets: dict[str, int], *, is_unit: bool = False) -> list[str]:
        arguments = (self.module, build, self.linger_s, self.memory_mib, is_unit)
        return detach.command(self.name, self.path, arguments, list(sockets))

    def _build(self) -> str:
        """Return what identifies the build that the module is of: its file."""
        if self.version:
            return self.version
        spec = importlib.util.find_spec(self.module)
        path = spec.origin if spec and spec.origin else self.module
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


def _ask(
    connection: socket.socket, build: str, sockets: dict[str, int], *, take: bool = False, wait: bool
) -> _Answer | None:
    """Return a helper's answer; None if it has ended, or ends now. Pass it sockets that it must keep."""
    with connection:
        try:
            message.send(connection, {"build": build, "take": take, "wait": wait}, sockets)
            answer, taken = message.receive(connection)
        except (OSError, ValueError):
            return None
    is_unit, error = bool(answer.get("unit")), str(answer.get("error", ""))
    return _Answer(str(answer.get("build", "")), is_unit, error, taken)


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
