"""A process that is the plugin for one launcher after another.

During a call it has the caller's environment, working directory, umask and descriptors 0, 1, 2, and ends
as a plugin would when its launcher is killed. It takes another call only after one that succeeded, and
after it has proved to be as it was at its start.
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
from cni.warm import leak_check
from cni.warm.caller_context import Disguise
from cni.warm.connection import SLOW, TAKEN, Call, Door, RefusedError
from cni.warm.log import log
from cni.warm.watch import LauncherWatch

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping
    from types import FrameType

    from cni.plugin import Plugin
    from cni.warm.scoreboard import Post

# How the server lets a worker go: at once when it waits, else after the call in hand.
LET_GO = signal.SIGUSR1
_CALL_WITHIN_S = 5
_LATE_WITHIN_S = 60


class Worker:
    """Serves calls from a listening socket.

    `post` is told what it does. Plugins see the variables of `defaults` where the caller has not set them.
    """

    def __init__(
        self,
        listener: socket.socket,
        door: Door,
        table: Mapping[str, str],
        post: Post,
        defaults: Mapping[str, str],
    ) -> None:
        self._listener = listener
        self._door = door
        self._table = table
        self._post = post
        self._defaults = defaults
        self._is_orphan = self._is_busy = False
        # So the first idle worker gets the call, whose memory and caches are warm, and not, as with
        # those that wait in accept(2), the one that has been idle for longest: 0.3 ms of each call.
        listener.settimeout(0)
        self._calls = select.epoll()
        self._calls.register(listener, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        self._watch = LauncherWatch(door)
        streams.begin_answers_by(door.begin_answer)
        signal.signal(LET_GO, self._on_let_go)
        # What the server may write to, its journal, is for its log alone.
        door.leave()
        self._disguise = Disguise()

    def serve(self, calls: int) -> None:
        """Work until all calls are done, one has failed or left traces, or the server has gone."""
        start = leak_check.take()
        for _ in range(calls):
            status = self._serve_one(self._await_caller())
            self._door.close()
            if background.count_threads() > 1:
                self._post.is_late()
                background.wait(_LATE_WITHIN_S)
            left = leak_check.differences(start, leak_check.take())
            # Who was let go has closed the listener itself, and ends anyway.
            if left and not self._is_orphan:
                log(f"a worker ends as a call has left: {', '.join(left)}")
            if status is not None:
                self._post.has_served()
            self._is_busy = False
            if status or left or self._is_orphan:
                return
            self._post.is_idle()

    def _await_caller(self) -> int:
        while True:
            self._calls.poll()
            # Before the launcher is told anything: until then it can do without us.
            self._is_busy = True
            if (found := self._door.take()) != TAKEN:
                return found
            self._is_busy = False
            if self._is_orphan:
                os._exit(0)

    def _on_let_go(self, _number: int, _frame: FrameType | None) -> None:
        if not self._is_busy:
            os._exit(0)
        self._is_orphan = True
        # As long as anybody has it, callers find a socket; nobody would accept them.
        self._listener.close()

    def _serve_one(self, found: int) -> int | None:
        """Run the call of the caller that was let in; gives its exit status, None for what was no call."""
        try:
            if found == SLOW:
                # Not a launcher, or a slow one: somebody else must wait for calls meanwhile.
                self._post.is_busy()
                found = self._door.wait(_CALL_WITHIN_S)
            if (call := self._door.call(found)) is None:
                return None
            # While the launcher is at its descriptors.
            self._post.is_busy()
            env = call.env()
            self._door.begin(_CALL_WITHIN_S)
        except RefusedError as error:
            log(f"refused a call: {error}")
            self._door.leave()
            return None
        status = self._run(call, env)
        self._door.leave()
        self._door.answer(status)
        self._disguise.take_off()
        self._watch.renew()
        return status

    def _run(self, call: Call, env: Mapping[str, str]) -> int:
        """Be the plugin's process, from its start to its end; gives the exit status."""
        stdin, stdout = self._disguise.put_on(env)

        def load() -> Plugin[Any]:
            # Only from here on an interruption is answered with an error object.
            self._watch.begin()
            return multicall.load(call.name, self._table, call.executable)

        delegates = partial(multicall.run_delegate, call.executable, self._table)
        status = 1
        try:
            try:
                status = skel.run(load, {**self._defaults, **env}, stdin, stdout, delegates)
                self._disguise.flush()
            finally:
                self._watch.end()
        except CniError:
            # Asked to stop when all was done, and told; a second time nobody is interrupted.
            self._watch.end()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except OSError as error:
            log(f"the last output of {call.name} could not be written: {error}")
            status = 1
        return status
