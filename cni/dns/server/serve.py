"""The helper: reads the records, listens at the gateways, and answers.

Its sockets outlive it: `cni.service.guard` holds them. All else is in the records.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from cni.dns import records
from cni.dns.book import HOST
from cni.dns.client import HELPER
from cni.dns.server import hosts, library  # noqa: F401 - before any other import of dnspython
from cni.dns.server.desk import Desk
from cni.dns.server.poller import Poller
from cni.dns.server.streams import Streams
from cni.kernel import netns
from cni.service import sockets
from cni.service.loop import Due, log

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.dns.names import Record

__all__ = ["HELPER", "finish", "receive", "tick"]

PORT = 53
_UDP, _TCP = "udp", "tcp"
_STREAMS = "connections"
_BACKLOG = 64
# More than a second of queries at the rate that one core answers.
_RECEIVE_BUFFER = 2 << 20
_LARGEST_QUERY = 4096
_BATCH = 64
_BIND_AGAIN_S = 1.0
# Namespaces that are gone, and hosts files, are looked at so often.
_LOOK_EVERY_S = 30.0
# Longer than any query waits for other servers.
_FINISH_WITHIN_S = 4.5
_IP_FREEBIND, _IPV6_FREEBIND, _SO_RCVBUFFORCE = 15, 78, 33


class _Server:
    def __init__(self) -> None:
        self._poller = Poller()
        self._key = HELPER.key
        self._desk = Desk(self._poller)
        self._streams = Streams(self._poller, self._serve_stream)
        # By folder and name of its file; None for one of other namespaces, or of a container that is gone.
        self._loaded: dict[str, dict[str, Record | None]] = {}
        # Of folders that need not be listed before they change.
        self._stamps: dict[str, records.Stamp] = {}
        self._failed: dict[str, str] = {}
        self._gateways: dict[str, str] = {}
        self._looked_s = time.monotonic()
        # Records of hosts files, by network, with the file's stamp.
        self._hosts: dict[str, tuple[hosts.Stamp, list[Record]]] = {}
        self._changed = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poller.watch(self._changed, self._hear_of_change)
        self._has_changed = False

    def look(self) -> Due:
        """Make the records effective; return when to look again."""
        if sockets.find(_STREAMS) is None:
            sockets.attend(_STREAMS, self._poller)
        # First: each query that waits has a descriptor, and files need some.
        self._desk.forwarder.expire()
        self._load()
        self._load_hosts()
        if time.monotonic() >= self._looked_s + _LOOK_EVERY_S:
            self._forget_the_dead()
        self._bind()
        waits = [self._desk.forwarder.expire(), self._streams.expire()]
        if not self._desk.book.zones:
            return Due(None)
        waits.append(_BIND_AGAIN_S if self._failed else _LOOK_EVERY_S)
        return Due(min(each for each in waits if each is not None), self._describe())

    def receive(self, name: str, bound: socket.socket) -> float | None:
        """Serve a readable socket; return the seconds until `look` must be called, None for no change."""
        if name == _STREAMS:
            self._poller.serve()
            if self._has_changed:
                # The files are due at once, and so are containers that another program has ended.
                self._has_changed, self._looked_s = False, -_LOOK_EVERY_S
                return 0
            return (
                self._desk.forwarder.expire() if self._desk.forwarder.is_waiting else self._streams.expire()
            )
        gateway = self._gateways[name]
        if name.startswith(_TCP):
            self._streams.accept(gateway, bound)
            return self._streams.expire()
        self._receive_udp(gateway, bound)
        return self._desk.forwarder.expire() if self._desk.forwarder.is_waiting else None

    def finish(self) -> None:
        """Answer what waits for another server, and the queries of connections. None of them can move."""
        deadline_s = time.monotonic() + _FINISH_WITHIN_S
        # select(2) takes no descriptor above 1,023, and hundreds of networks have as many sockets.
        waiting = select.poll()
        waiting.register(self._poller, select.POLLIN)
        while (rest_s := deadline_s - time.monotonic()) > 0:
            due_s = self._desk.forwarder.expire()
            if due_s is None and not self._streams.close_served():
                return
            waiting.poll(1000 * (rest_s if due_s is None else min(rest_s, due_s)))
            # A connection gets no name that has been withdrawn meanwhile.
            self._load()
            self._poller.serve()

    def _receive_udp(self, gateway: str, bound: socket.socket) -> None:
        serve = self._desk.serve
        for _ in range(_BATCH):
            try:
                query, peer = bound.recvfrom(_LARGEST_QUERY)
            except OSError:
                return
            # The host reaches its own address from that address. If a container writes it into a packet, the
            # answer goes to the host.
            asker = HOST if peer[0] == gateway else peer[0]
            serve(asker, gateway, query, partial(_send, bound, peer), is_tcp=False)

    def _serve_stream(self, asker: str, gateway: str, query: bytes, reply: Callable[[bytes], None]) -> None:
        self._desk.serve(asker, gateway, query, reply, is_tcp=True)

    def _load(self) -> None:
        """Read the files that are new, and forget those that are gone."""
        for folder in {*records.list_folders(), *self._loaded}:
            stamp = records.stamp(folder)
            if stamp and stamp == self._stamps.get(folder):
                continue
            self._stamps.pop(folder, None)
            # Before the folder is listed: a change that is listed may have the time of one that is not.
            is_settled = stamp and records.is_settled(stamp)
            if self._load_folder(folder) and stamp and is_settled:
                self._stamps[folder] = stamp

    def _load_folder(self, folder: str) -> bool:
        """Load the files of a folder; return whether each one could be read."""
        loaded = self._loaded.setdefault(folder, {})
        names = set(records.list_names(folder))
        for name in loaded.keys() - names:
            if record := loaded.pop(name):
                self._desk.remove(record)
        new = names - loaded.keys()
        for name in new:
            # One that is damaged, or that cannot be read at this moment, is read again the next time.
            if record := records.read(f"{folder}/{name}"):
                loaded[name] = self._desk.add(record) if record.owner == self._key else None
        return new <= loaded.keys()

    def hear(self, *_: object) -> None:
        """Note that a hosts file has changed."""
        os.eventfd_write(self._changed, 1)

    def _hear_of_change(self) -> None:
        os.eventfd_read(self._changed)
        self._has_changed = True

    def _load_hosts(self) -> None:
        """Read the hosts files of networks that have changed."""
        wanted = {each.network: each for each in self._desk.book.zones.values() if each.settings.hosts}
        for network, (stamp, listed) in list(self._hosts.items()):
            zone = wanted.get(network)
            if zone is None or hosts.stamp(zone.settings.hosts) != stamp:
                for each in listed:
                    self._desk.remove(each)
                del self._hosts[network]
        for network, zone in wanted.items():
            hosts.write_pid(zone.settings.pid_file)
            if network not in self._hosts:
                stamp = hosts.stamp(zone.settings.hosts)
                self._hosts[network] = stamp, [self._desk.add(each) for each in hosts.read(zone)]

    def _forget_the_dead(self) -> None:
        """Forget containers that have ended without a DEL. GC removes their files."""
        self._looked_s = time.monotonic()
        for loaded in self._loaded.values():
            for name, record in loaded.items():
                if record and record.netns and netns.is_gone(record.netns):
                    self._desk.remove(record)
                    loaded[name] = None

    def _bind(self) -> None:
        """Listen at each gateway, and at no other address."""
        wanted = self._desk.book.gateways()
        self._gateways = {name: each for each in wanted for name in self._names_of(each)}
        for name in set(sockets.kept()) - self._gateways.keys():
            sockets.drop(name)
        for gateway in wanted:
            if not self._names_of(gateway) <= sockets.kept().keys():
                self._listen(gateway)
        for gateway in self._failed.keys() - wanted:
            del self._failed[gateway]

    def _listen(self, gateway: str) -> None:
        """Listen for both protocols, or for none: ADD asks by one of them whether all is well."""
        bound: dict[str, socket.socket] = {}
        try:
            for name in self._names_of(gateway) - sockets.kept().keys():
                bound[name] = _bound(gateway, is_tcp=name.startswith(_TCP))
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            if self._failed.get(gateway) != reason:
                log(f"could not listen at {gateway} port {PORT}: {reason}")
            self._failed[gateway] = reason
            for each in bound.values():
                each.close()
            for name in self._names_of(gateway):
                sockets.drop(name)
            return
        self._failed.pop(gateway, None)
        for name, each in bound.items():
            sockets.keep(name, each)

    @staticmethod
    def _names_of(gateway: str) -> set[str]:
        return {f"{_UDP} {gateway}", f"{_TCP} {gateway}"}

    def _describe(self) -> list[str]:
        zones = sorted(self._desk.book.zones.values(), key=lambda each: each.network)
        return [f"names of {each.network} at {', '.join(each.settings.gateways)}" for each in zones]


def _send(bound: socket.socket, peer: tuple[str, int], answer: bytes) -> None:
    # The asker's link may be gone, or its queue full: it asks again.
    with suppress(OSError):
        bound.sendto(answer, peer)


def _bound(address: str, *, is_tcp: bool) -> socket.socket:
    """Return a socket at port 53 of one address, which need not be ready, or there, yet."""
    is_v6 = ":" in address
    family = socket.AF_INET6 if is_v6 else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM if is_tcp else socket.SOCK_DGRAM)
    try:
        if is_v6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        else:
            made.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        if is_tcp:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            _widen(made)
        made.bind((address, PORT))
        if is_tcp:
            made.listen(_BACKLOG)
    except BaseException:
        made.close()
        raise
    return made


def _widen(listening: socket.socket) -> None:
    """Let queries wait while the server is started again. Only root may exceed the system's limit."""
    try:
        listening.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
    except OSError:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)


_SERVER = _Server()
signal.signal(signal.SIGHUP, _SERVER.hear)


def tick(_answer: Callable[[], bool]) -> Due:
    """Look at the records."""
    return _SERVER.look()


def receive(name: str, bound: socket.socket) -> float | None:
    """Serve a readable socket."""
    return _SERVER.receive(name, bound)


def finish() -> None:
    """Answer what another helper cannot take over."""
    _SERVER.finish()
