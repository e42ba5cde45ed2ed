"""Find processes that listen on a host port which is about to be published.

A socket is bound to the port for a moment. The kernel refuses that if another socket has the port. This takes
10 us for each port and family, whatever the number of sockets, and respects wildcards of both families. The
tables of /proc, which name the listeners, are read only after a refusal.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from cni.hostports.ledger import overlap

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cni.firewall.intents import PortMapping
    from cni.result import IpAddress

_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
# <linux/tcp.h>: TCP_LISTEN; a UDP socket without a peer is TCP_CLOSE.
_LISTENING = {"tcp": "0A", "udp": "07"}
_FAMILIES: dict[int, int] = {4: socket.AF_INET, 6: socket.AF_INET6}
# <linux/in.h>, <linux/in6.h>: bind to an address that this host does not have.
_FREEBIND = {4: (socket.IPPROTO_IP, 15), 6: (socket.IPPROTO_IPV6, 78)}
_EVERY: dict[int, IpAddress] = {4: ip_address("0.0.0.0"), 6: ip_address("::")}  # noqa: S104 - to compare with
# A host may have many thousands of descriptors, and an ADD must not look for a name for long. This is CPU
# time: on a busy machine the same search takes longer by the clock, and finds the same process.
_NAMED_WITHIN_CPU_S = 0.2


class Listener(NamedTuple):
    """A listening socket and its process: "process 123 (nginx)", "the kernel"."""

    protocol: str
    address: IpAddress
    port: int
    inode: str
    process: str = ""

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{self.process} listens on {host}:{self.port}/{self.protocol}"


def find(mappings: Iterable[PortMapping], versions: Iterable[int]) -> list[Listener]:
    """Find listening sockets on host ports in this network namespace, each once.

    `versions` are the IP versions in which the ports are published. SCTP is ignored, because a socket loads
    the kernel's module.
    """
    wanted = list(versions)
    found: dict[Listener, None] = {}
    for mapping in mappings:
        for version in wanted:
            if _is_taken(mapping, version):
                found |= dict.fromkeys(_list_listening(mapping, version))
    names = _name_processes({each.inode for each in found}) if found else {}
    return [each._replace(process=names[each.inode]) for each in found]


def _is_taken(mapping: PortMapping, version: int) -> bool:
    """Return whether any socket prevents another one from listening on the port."""
    kind = _KINDS.get(mapping.protocol)
    if kind is None or (mapping.host_ip is not None and mapping.host_ip.version != version):
        return False
    try:
        with socket.socket(_FAMILIES[version], kind | socket.SOCK_CLOEXEC) as trial:
            if kind == socket.SOCK_STREAM:
                # Closed connections do not prevent it. For listening sockets the option makes no difference.
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if version == 6:
                trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            trial.setsockopt(*_FREEBIND[version], 1)
            trial.bind((str(mapping.host_ip or _EVERY[version]), mapping.host_port))
    except OSError as error:
        # Only EADDRINUSE means the port is taken; ignore other errors (e.g. family not supported).
        return error.errno == errno.EADDRINUSE
    return False


def _list_listening(mapping: PortMapping, version: int) -> list[Listener]:
    """List the sockets that listen on the mapping's addresses, from the kernel's tables."""
    tables = (4, 6) if version == 4 else (6,)
    listed = [each for table in tables for each in _read_table(mapping, table)]
    own = [each for each in listed if each.address.version == version]
    own = [each for each in own if overlap(mapping.host_ip, each.address)]
    if own or version == 6:
        return own
    # An IPv6 socket for all addresses accepts IPv4, too.
    return [each for each in listed if each.address == _EVERY[6]]


def _read_table(mapping: PortMapping, version: int) -> Iterator[Listener]:
    name = mapping.protocol + ("6" if version == 6 else "")
    wanted, port = _LISTENING[mapping.protocol], f"{mapping.host_port:04X}"
    try:
        # The thread's table: the process may be in another namespace.
        with open(f"/proc/thread-self/net/{name}", encoding="ascii") as table:  # noqa: PTH123 - read by lines
            next(table, "")
            for line in table:
                # "0: 0100007F:1F90 00000000:0000 0A ...": slot, own address, peer, state; tenth is the inode.
                words = line.split()
                if mapping.protocol == "tcp" and words[3] != wanted:
                    # Listening sockets come first, and thousands of connections may follow.
                    return
                address, _, own_port = words[1].partition(":")
                if own_port == port and words[3] == wanted:
                    yield Listener(mapping.protocol, _shown(address), mapping.host_port, words[9])
    except OSError:
        return


def _shown(text: str) -> IpAddress:
    """Read an address of these tables: words of 32 bits, each in the byte order of the machine.

    Return an IPv4 address for an IPv4-mapped one.
    """
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    address = ip_address(packed)
    return getattr(address, "ipv4_mapped", None) or address


def _name_processes(inodes: set[str]) -> dict[str, str]:
    """Return the process of each socket, "another process" if it is not found in time."""
    names = {inode: "the kernel" if inode == "0" else "another process" for inode in inodes}
    links = {f"socket:[{inode}]": inode for inode in inodes if inode != "0"}
    limit = time.thread_time() + _NAMED_WITHIN_CPU_S
    pids = filter(str.isdigit, os.listdir("/proc"))  # noqa: PTH208 - names are all that is needed
    # Containers may have thousands of descriptors.
    own = _network("thread-self")
    for pid in sorted(pids, key=lambda each: _network(each) != own):
        if not links or time.thread_time() > limit:
            break
        for held in _list_open(pid):
            if inode := links.pop(held, ""):
                names[inode] = f"process {pid}{_command(pid)}"
    return names


def _network(pid: str) -> str:
    """Return the network namespace of a process, "" if it has ended."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net")  # noqa: PTH115
    except OSError:
        return ""


def _list_open(pid: str) -> Iterator[str]:
    """Yield the targets of a process's descriptors, nothing if the process has ended."""
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)  # noqa: PTH208
    except OSError:
        return
    for name in names:
        # The descriptor may be closed by now.
        with suppress(OSError):
            yield os.readlink(f"{folder}/{name}")  # noqa: PTH115


def _command(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return f" ({file.read().strip()})"
    except OSError:
        return ""
