"""The messages about the host's table of neighbours, as pyroute2 reads them."""

from __future__ import annotations

import errno
from ipaddress import ip_address

import pytest
from pyroute2.netlink.rtnl.ndmsg import ndmsg

from cni.errors import KernelError
from cni.kernel import neigh, rtnetlink

MAC = "02:11:22:33:44:55"


def read(message: rtnetlink.Message) -> ndmsg:
    # The header of a netlink message comes first: its length, and twelve bytes more.
    shown = ndmsg((16 + len(message.body)).to_bytes(4, "little") + bytes(12) + message.body)
    shown.decode()
    return shown


@pytest.mark.parametrize(("address", "family"), [("10.1.0.2", 2), ("fd01::2", 10)])
def test_an_entry_is_written_and_looked_up(address: str, family: int) -> None:
    written, asked = neigh.remember(7, ip_address(address), MAC), neigh.look_up(7, ip_address(address))
    assert (written.kind, asked.kind) == (rtnetlink.RTM_NEWNEIGH, rtnetlink.RTM_GETNEIGH)
    for message, state, mac in ((written, 0x04, MAC), (asked, 0, None)):
        shown = read(message)
        assert (shown["family"], shown["ifindex"], shown["state"], shown["flags"]) == (family, 7, state, 0)
        assert shown.get_attr("NDA_DST") == address
        assert shown.get_attr("NDA_LLADDR") == mac
    assert neigh.shown_mac(written.body) == MAC


def test_no_entry_and_one_without_a_mac_address_are_none() -> None:
    assert neigh.shown_mac(KernelError("look up", errno.ENOENT)) == ""
    assert neigh.shown_mac(neigh.look_up(7, ip_address("10.1.0.2")).body) == ""
    with pytest.raises(KernelError):
        neigh.shown_mac(KernelError("look up", errno.EPERM))
