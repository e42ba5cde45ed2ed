"""Connections that send all the time: each message must come back, in order, until the test ends them."""

from __future__ import annotations

import mmap
import os
import selectors
import signal
import socket
import struct
import time
from typing import TYPE_CHECKING, Self

from cni.testing.place import fork

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.testing.place import Place

_NUMBER = struct.Struct("=Q")
# What the two processes share: the number of echoes so far, and whether to end.
_ECHOES, _END = 0, 8
_PAUSE_S = 0.01
# A connection whose packets are dropped is tried again by the kernel for minutes.
_SILENCE_S = 60


class Child:
    """A child process in a place, killed at the end."""

    def __init__(self, place: Place, work: Callable[[], None]) -> None:
        self.pid = fork()
        if self.pid:
            return
        status = 1
        try:
            place.enter()
            work()
            status = 0
        finally:
            os._exit(status)

    def wait(self) -> int:
        """Return its exit status."""
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        """End it."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Echo(Child):
    """A TCP server that sends back what it gets, on any number of connections."""

    def __init__(self, place: Place, port: int) -> None:
        reader, writer = os.pipe()
        super().__init__(place, lambda: _echo(port, writer))
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            if pipe.read() != b"ready":
                raise OSError(f"could not serve port {port}")


def _echo(port: int, writer: int) -> None:
    server = socket.create_server(("", port))
    os.write(writer, b"ready")
    os.close(writer)
    # One process for all connections, so that none outlives it.
    waiting = selectors.DefaultSelector()
    waiting.register(server, selectors.EVENT_READ)
    while True:
        for key, _ in waiting.select():
            ready = key.fileobj
            assert isinstance(ready, socket.socket)
            if ready is server:
                waiting.register(server.accept()[0], selectors.EVENT_READ)
            elif data := ready.recv(1 << 16):
                ready.sendall(data)
            else:
                waiting.unregister(ready)
                ready.close()


class Stream(Child):
    """A connection from a place to a server; `what` names it in failures."""

    def __init__(self, what: str, place: Place, address: str, port: int) -> None:
        self.what = what
        self._shared = mmap.mmap(-1, mmap.PAGESIZE)
        super().__init__(place, lambda: _send(address, port, self._shared))

    @property
    def echoes(self) -> int:
        """How many messages have come back."""
        return int(_NUMBER.unpack_from(self._shared, _ECHOES)[0])

    def must_flow(self) -> None:
        """Fail the test unless messages go on coming back; two, as one may be on its way already."""
        deadline = time.monotonic() + _SILENCE_S
        wanted = self.echoes + 2
        while self.echoes < wanted:
            assert time.monotonic() < deadline, f"{self.what}: no more than {self.echoes} echoes"
            time.sleep(_PAUSE_S)

    def end(self) -> None:
        """Close the connection; fail the test unless every message had come back."""
        self.must_flow()
        self._shared[_END] = 1
        assert self.wait() == 0, f"{self.what}: broken after {self.echoes} echoes"


def _send(address: str, port: int, shared: mmap.mmap) -> None:
    number = 0
    with socket.create_connection((address, port), timeout=_SILENCE_S) as connection:
        while not shared[_END]:
            number += 1
            connection.sendall(_NUMBER.pack(number))
            got = b""
            while len(got) < _NUMBER.size:
                more = connection.recv(_NUMBER.size - len(got))
                if not more:
                    raise ConnectionError("closed")
                got += more
            if _NUMBER.unpack(got)[0] != number:
                raise ConnectionError("another message came back")
            shared[_ECHOES : _ECHOES + _NUMBER.size] = got
            time.sleep(_PAUSE_S)
