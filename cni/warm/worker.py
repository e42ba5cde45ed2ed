"""A process that runs plugins for one launcher after another.

During a call the worker has the caller's environment, working directory, umask and descriptors 0, 1, 2. If
the launcher is killed, the worker ends as a plugin would. It serves another call only after one that
succeeded, and only if the leak check finds no change of the process.
"""

from __future__ import annotations

import os
import select
import signal
from functools import partial
from typing import TYPE_CHECKING, Any

from cni import multicall, skel, streams
from cni.errors import CniError
from cni.kernel import background
from cni.warm import abandoned, leak_check
from cni.warm.caller_context import CallerContext
from cni.warm.connection import NO_REQUEST_YET, NONE_PENDING, Connection, PluginCall, RefusedError
from cni.warm.log import log
from cni.warm.watch import LauncherWatch

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping
    from types import FrameType

    from cni.plugin import Plugin
    from cni.warm.scoreboard import Slot

# The server's signal to end: an idle worker ends at once, a busy one after its call.
RETIRE = signal.SIGUSR1
_REQUEST_TIMEOUT_S = 5
_BACKGROUND_TIMEOUT_S = 60


class Worker:
    """Serves calls from a listening socket, and records its state in `slot`.

    Plugins see the variables of `defaults` if the caller has not set them.
    """

    def __init__(
        self,
        listener: socket.socket,
        connection: Connection,
        table: Mapping[str, str],
        slot: Slot,
        defaults: Mapping[str, str],
    ) -> None:
        self._listener = listener
        self._connection = connection
        self._table = table
        self._slot = slot
        self._defaults = defaults
        self._is_retired = self._is_busy = False
        # EPOLLEXCLUSIVE wakes the most recently active worker, whose caches are warm; accept(2) would wake
        # the longest idle one: 0.3 ms of each call.
        listener.settimeout(0)
        self._epoll = select.epoll()
        self._epoll.register(listener, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        self._watch = LauncherWatch(connection)
        streams.begin_answers_by(connection.take_response_token)
        signal.signal(RETIRE, self._on_retire)
        # The server's own stderr, which may be the journal, is for the log only.
        connection.restore_context()
        self._context = CallerContext()

    def serve(self, calls: int) -> None:
        """Serve up to `calls` calls; end early if one fails, if it leaks, or if the server has ended."""
        start = leak_check.snapshot()
        for _ in range(calls):
            status = self._serve_one(self._accept())
            self._connection.close()
            if background.count_threads() > 1:
                self._slot.set_background()
                background.wait(_BACKGROUND_TIMEOUT_S)
            leaks = leak_check.differences(start, leak_check.snapshot())
            # A retired worker has closed the listener itself, and ends anyway.
            if leaks and not self._is_retired:
                log(f"worker ends: the last call changed its {', '.join(leaks)}")
            if status is not None:
                self._slot.count_call()
            self._is_busy = False
            if status or leaks or self._is_retired:
                return
            self._slot.set_idle()

    def _accept(self) -> int:
        while True:
            self._epoll.poll()
            # Set before the launcher gets a message: until then the launcher does not need this worker.
            self._is_busy = True
            if (length := self._connection.accept()) != NONE_PENDING:
                return length
            self._is_busy = False
            if self._is_retired:
                os._exit(0)

    def _on_retire(self, _number: int, _frame: FrameType | None) -> None:
        if not self._is_busy:
            os._exit(0)
        self._is_retired = True
        # While a process has the listener open, callers can connect, but no worker would accept them.
        self._listener.close()

    def _serve_one(self, length: int) -> int | None:
        """Run the call of the accepted connection. Return its exit status; None if it is not a call."""
        try:
            if length == NO_REQUEST_YET:
                # The client is slow or not a launcher: another worker must wait for calls meanwhile.
                self._slot.set_busy()
                length = self._connection.receive(_REQUEST_TIMEOUT_S)
            if (call := self._connection.read(length)) is None:
                return None
            # Recorded while the launcher opens and sends its descriptors.
            self._slot.set_busy()
            env = call.env()
            self._connection.adopt_context(_REQUEST_TIMEOUT_S)
        except RefusedError as error:
            log(f"refused a call: {error}")
            self._connection.restore_context()
            return None
        status = self._run(call, env)
        # Before the launcher ends: then it would be one that was killed.
        self._slot.end_call()
        self._connection.restore_context()
        self._connection.send_status(status)
        self._context.restore()
        self._watch.renew()
        return status

    def _run(self, call: PluginCall, env: Mapping[str, str]) -> int:
        """Run the plugin as a process of its own would. Return the exit status."""
        stdin, stdout = self._context.adopt(env)
        running = abandoned.describe(env, self._connection.peer_process())
        self._slot.begin_call(running)

        def load() -> Plugin[Any]:
            # Only from here on is an interruption reported as an error object.
            self._watch.begin()
            abandoned.wait(self._slot, running)
            return multicall.load(call.name, self._table, call.executable)

        delegates = partial(multicall.run_delegate, call.executable, self._table)
        status = 1
        try:
            try:
                status = skel.run(load, {**self._defaults, **env}, stdin, stdout, delegates)
                self._context.flush()
            finally:
                self._watch.end()
        except CniError:
            # Interrupted after the response was written. A second interruption is not possible.
            self._watch.end()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except OSError as error:
            log(f"cannot write the last output of {call.name}: {error}")
            status = 1
        return status
