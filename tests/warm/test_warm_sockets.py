"""The nfnetlink sockets that the server keeps for its workers are reused and work like new ones."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from cni.errors import KernelError
from cni.kernel.attributes import attributes, text
from cni.kernel.nfnetlink import SUBSYS_NFTABLES, Message, Nfnetlink
from cni.warm import control
from tests.warm.odd.cni_odd import netfilter_sockets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.warm.conftest import WarmHost

# <linux/netfilter/nf_tables.h>
NEWTABLE, GETTABLE = SUBSYS_NFTABLES << 8, SUBSYS_NFTABLES << 8 | 1
NAME, IPV4 = 1, 2


def test_one_worker_after_another_has_the_servers_sockets(warm_host: WarmHost) -> None:
    warm_host.settings(workers=1, calls=1)
    workers: set[str] = set()
    used: list[str] = []
    for _ in range(8):
        if workers:
            warm_host.await_idle()
        facts, sockets = map(json.loads, warm_host.odd("netfilter sockets").stderr.splitlines())
        workers.add(facts["pid"])
        # Those that are still to be given to others were closed.
        assert len(sockets) == 1
        used += sockets
    [server] = warm_host.call(control.find)
    assert len(workers) == 8
    # One for the worker in a call, one for that which waits, perhaps one while both are there still.
    assert len(set(used)) <= 3
    assert set(used) <= netfilter_sockets(server.pid)


class _Hasty(Nfnetlink):
    """A socket that does not wait for its responses."""

    is_hasty = False

    def _received(self, doing: str, flags: int = 0) -> Iterator[tuple[int, int, int, bytes]]:
        if self.is_hasty:
            raise KernelError(doing, 0)
        return super()._received(doing, flags)

    def ask_only(self, message: Message) -> None:
        self.is_hasty = True
        with suppress(KernelError):
            self.request(message)
        self.is_hasty = False


def _look_up(name: str) -> Message:
    return Message(f"look for {name}", GETTABLE, IPV4, text(NAME, name))


def _name(found: bytes | None) -> str:
    return attributes(found or b"").get(NAME, b"").decode().rstrip("\0")


def _find_after_another_process(*, is_renewed: bool) -> list[str]:
    """Let a child send requests on our socket and exit. Return our listings after that, table by table."""
    opened = _Hasty()
    opened.commit([Message(f"make {each}", NEWTABLE, IPV4, text(NAME, each)) for each in ("one", "two")])
    child = os.fork()
    if child == 0:
        try:
            opened.ask_only(_look_up("one"))
            opened.ask_only(_look_up("one"))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    if is_renewed:
        opened.renew()
    return [_name(opened.find(_look_up(each))) for each in ("two", "none", "one")]


def test_replies_to_a_killed_worker_are_not_read_as_ones_own(warm_host: WarmHost) -> None:
    assert warm_host.call(_find_after_another_process, is_renewed=True) == ["two", "", "one"]
    # That is what a fork would find otherwise: numbers go on from where the parent's were.
    assert warm_host.call(_find_after_another_process, is_renewed=False)[0] == "one"
