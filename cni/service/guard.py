"""The guard of a helper: a small process that forks the helper, and forks it again when it ends by an error.

    guard  holds the sockets; its status file is locked while it lives
      `-- helper  works; it has the same sockets, because fork(2) copies descriptors

No packet and no request is lost while there is no helper: they wait in the sockets. The helper sends the
guard each socket that the next helper must have. If the guard itself is killed, the helper executes the
program of the guard, with all sockets.

The guard imports little: it takes 3 MiB, half of which it shares with its helper.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import time
from typing import TYPE_CHECKING

from cni.service import status

if TYPE_CHECKING:
    from typing import NoReturn

# The request socket; those of the helper follow.
LISTEN_FD = 3
# The first argument of a guard, for people and for tests that list processes.
OPTION = "--pycni-helper"
KEEP, DROP = b"+", b"-"
LONGEST_NAME = 200
# The first helper that ends by an error is started again at once, those after it ever later.
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 5.0
# One that has lived so long counts as the first.
_STEADY_S = 60.0


def run(path: str, names: list[str], module: str, *arguments: object) -> None:
    """Guard the helper of `module` until it ends by itself, or by SIGTERM.

    `names` are those of the sockets that follow LISTEN_FD. `arguments` are the loop's.
    """
    _call_process("pycni-guard")
    guard = _Guard(path, {name: LISTEN_FD + 1 + at for at, name in enumerate(names)})
    pause_s, restarts = 0.0, 0
    while True:
        started_s = time.monotonic()
        if not guard.has_failed(restarts, module, *arguments):
            break
        if time.monotonic() - started_s > _STEADY_S:
            pause_s = 0.0
        if not guard.can_pause(pause_s):
            break
        pause_s, restarts = min(max(2 * pause_s, _SHORTEST_PAUSE_S), _LONGEST_PAUSE_S), restarts + 1
    guard.remove_status()


class _Guard:
    def __init__(self, path: str, sockets: dict[str, int]) -> None:
        self._path = path
        self._sockets = sockets
        self._status_path = path.removesuffix(".sock") + status.SUFFIX
        self._status = status.create(self._status_path)
        self._child = -1
        self._is_ending = False
        self._wakeup, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def has_failed(self, restarts: int, module: str, *arguments: object) -> bool:
        """Run a helper to its end; return whether it must be started again."""
        # Most services begin with 1,024. A container can let so many queries wait in a helper.
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            own.close()
            self._become_helper(other, restarts, module, *arguments)
        other.close()
        with own:
            self._child = os.pidfd_open(pid)
            # A signal that came before had no helper to go to.
            if self._is_ending:
                self._on_stop()
            self._attend(own)
            _, code = os.waitpid(pid, 0)
            os.close(self._child)
            self._child = -1
            # The sockets that it has sent before it ended.
            while self._receive(own):
                pass
        status.write(self._status, b'{"restarts": %d}' % (restarts + 1))
        return code != 0 and not self._is_ending

    def can_pause(self, pause_s: float) -> bool:
        """Pause; return whether to go on."""
        # select(2) takes no descriptor above 1,023.
        waiting = select.poll()
        waiting.register(self._wakeup, select.POLLIN)
        waiting.poll(1000 * pause_s)
        return not self._is_ending

    def remove_status(self) -> None:
        """Remove the status file, but not a newer guard's."""
        status.remove(self._status_path, self._status)

    def _on_stop(self, *_: object) -> None:
        self._is_ending = True
        if self._child >= 0:
            try:
                signal.pidfd_send_signal(self._child, signal.SIGTERM)
            except ProcessLookupError:
                return

    def _attend(self, channel: socket.socket) -> None:
        """Take sockets over until the helper has ended."""
        waiting = select.poll()
        for fd in (channel.fileno(), self._child):
            waiting.register(fd, select.POLLIN)
        while True:
            if self._child in dict(waiting.poll()):
                return
            if not self._receive(channel):
                # It has closed its end, and is about to end.
                waiting.unregister(channel)

    def _receive(self, channel: socket.socket) -> bool:
        """Hold or drop the socket that a message names; return False if no message waits."""
        try:
            text, fds, _, _ = socket.recv_fds(channel, LONGEST_NAME, 1, socket.MSG_DONTWAIT)
        except OSError:
            return False
        name = text[1:].decode(errors="replace")
        if text and name in self._sockets:
            os.close(self._sockets.pop(name))
        if text[:1] == KEEP and fds:
            self._sockets[name] = fds.pop()
        for each in fds:
            os.close(each)
        return bool(text)

    def _become_helper(
        self, channel: socket.socket, restarts: int, module: str, *arguments: object
    ) -> NoReturn:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            for fd in (self._wakeup, self._writer):
                os.close(fd)
            # Not earlier, as the guard needs none of it.
            from cni.service import loop

            _call_process("pycni-helper")
            handles = loop.Handles(channel, self._status, restarts, self._sockets)
            code = loop.run(self._path, handles, module, *arguments)
        finally:
            os._exit(code)


def _call_process(name: str) -> None:
    with open("/proc/self/comm", "w", encoding="ascii") as file:
        file.write(name)
