"""A transaction whose refusals do not fit into the socket's buffer is answered by the first one, at once."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

from cni.errors import KernelError
from cni.kernel.nfnetlink import SUBSYS_NFTABLES, Message, Nfnetlink

if TYPE_CHECKING:
    from cni.testing import Host

# <linux/netfilter/nf_tables.h>
_DELETE_CHAIN, _GET_GENERATION, _IPV4 = SUBSYS_NFTABLES << 8 | 5, SUBSYS_NFTABLES << 8 | 16, 2
_TABLE = 1
# The kernel counts about a KiB for each refusal.
_MANY = 30_000


def refused() -> tuple[int, str, int]:
    """Send it; return the error, and the number of replies to the next request."""
    payload = struct.pack("=HH8s", 12, _TABLE, b"missing\0")
    messages = [Message(f"remove chain {each}", _DELETE_CHAIN, _IPV4, payload) for each in range(_MANY)]
    nl = Nfnetlink()
    try:
        nl.commit(messages)
        found = (0, "")
    except KernelError as error:
        found = (error.errno, error.msg)
    replies = nl.request(Message("read the generation", _GET_GENERATION, 0))
    nl.close()
    return *found, len(replies)


def test_more_refusals_than_the_buffer_holds(host: Host) -> None:
    number, message, replies = host.call(refused)
    assert number == errno.ENOENT
    assert "remove chain 0:" in message
    assert replies == 1
