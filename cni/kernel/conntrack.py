"""Delete tracked connections to a published port, so that the present rules apply to their packets.

UDP needs it most. A flow keeps the translation that it had before the port was published, or until the port
was withdrawn, for as long as packets come. This module uses ctnetlink and starts no child process.
"""

from __future__ import annotations

import errno
import socket
import sys
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cni.errors import KernelError
from cni.faults import point
from cni.kernel.attributes import attribute, attributes, nest
from cni.kernel.nfnetlink import SUBSYS_CTNETLINK, Message, kept

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cni.result import IpAddress

_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
_VERSIONS: dict[int, int] = {socket.AF_INET: 4, socket.AF_INET6: 6}

# <linux/netfilter/nfnetlink_conntrack.h>
_GET = SUBSYS_CTNETLINK << 8 | 1
_DELETE = SUBSYS_CTNETLINK << 8 | 2
_GET_STATS = SUBSYS_CTNETLINK << 8 | 5
_TUPLE_ORIG = 1
_ID = 12
_ZONE = 18
_FILTER = 25
_TUPLE_IP = 1
_TUPLE_PROTO = 2
_IP_V4_DST = 2
_IP_V6_DST = 4
_PROTO_NUM = 1
_PROTO_DST_PORT = 3
_STATS_ENTRIES = 1
_FILTER_ORIG_FLAGS = 1
_FILTER_PROTO_NUM = 1 << 3
_FILTER_PROTO_DST_PORT = 1 << 5

# A port in network byte order, as it is compared.
_PortKey = bytes


def flush(protocol: str, host_port: int, host_ip: IpAddress | None, family: int) -> int:
    """Delete connections that were made to a port; return how many.

    `protocol` is "tcp", "udp" or "sctp", `family` AF_INET or AF_INET6. `host_ip` None or unspecified means
    all addresses. With an address, connections to others stay; an address of the other family has none.
    """
    return flush_ports(protocol, [(host_port, host_ip)], family)


def flush_ports(protocol: str, ports: Collection[tuple[int, IpAddress | None]], family: int) -> int:
    """Delete connections to any of several (port, address), as `flush` does, with one pass over the table."""
    wanted: dict[_PortKey, list[IpAddress | None]] = {}
    for host_port, host_ip in ports:
        if host_ip is None or host_ip.version == _VERSIONS[family]:
            every = host_ip is None or host_ip.is_unspecified
            wanted.setdefault(host_port.to_bytes(2, "big"), []).append(None if every else host_ip)
    if not wanted or _is_empty():
        return 0
    number = _PROTOCOLS[protocol.lower()]
    only = next(iter(wanted)) if len(wanted) == 1 else None
    return sum(
        _delete(entry, f"a port of {protocol}", family)
        for entry in map(attributes, kept().dump(_listing(number, only, protocol, family)))
        if _is_wanted(attributes(entry.get(_TUPLE_ORIG, b"")), number, wanted)
    )


def _is_empty() -> bool:
    """Return whether the kernel tracks no connection in this namespace.

    A listing walks a table that all namespaces share: 5 to 10 ms of CPU time for its usual 262,144 places.
    The kernel counts a connection before it puts it into the table.
    """
    stats = kept().find(Message("count tracked connections", _GET_STATS, socket.AF_UNSPEC))
    return stats is not None and attributes(stats).get(_STATS_ENTRIES) == bytes(4)


def _listing(number: int, port: _PortKey | None, protocol: str, family: int) -> Message:
    """Return the request for the entries of a protocol, and of one port if that is given.

    Kernels before 5.8 ignore both and list all entries.
    """
    parts = [attribute(_PROTO_NUM, bytes([number]))]
    flags = _FILTER_PROTO_NUM
    if port is not None:
        parts.append(attribute(_PROTO_DST_PORT, port))
        flags |= _FILTER_PROTO_DST_PORT
    # The only number of ctnetlink in the machine's byte order.
    ordered = attribute(_FILTER_ORIG_FLAGS, flags.to_bytes(4, sys.byteorder))
    payload = nest(_TUPLE_ORIG, nest(_TUPLE_PROTO, *parts)) + nest(_FILTER, ordered)
    return Message(f"list tracked connections of {protocol}", _GET, family, payload)


def _is_wanted(
    original: dict[int, bytes], number: int, wanted: Mapping[_PortKey, Collection[IpAddress | None]]
) -> bool:
    proto = attributes(original.get(_TUPLE_PROTO, b""))
    host_ips = wanted.get(proto.get(_PROTO_DST_PORT, b""), ())
    if proto.get(_PROTO_NUM) != bytes([number]) or not host_ips:
        return False
    if None in host_ips:
        return True
    ips = attributes(original.get(_TUPLE_IP, b""))
    dst = ips.get(_IP_V4_DST) or ips.get(_IP_V6_DST)
    return dst is not None and ip_address(dst) in host_ips


def _delete(entry: dict[int, bytes], port_name: str, family: int) -> bool:
    """Delete one entry, also by its ID: a new connection may have the same addresses and ports."""
    payload = nest(_TUPLE_ORIG, entry[_TUPLE_ORIG])
    payload += b"".join(attribute(kind, entry[kind]) for kind in (_ZONE, _ID) if kind in entry)
    try:
        kept().request(Message(f"forget a tracked connection to {port_name}", _DELETE, family, payload))
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
        return False
    point("conntrack.forgotten")
    return True
