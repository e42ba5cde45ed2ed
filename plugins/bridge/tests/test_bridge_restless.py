"""A container that moves its link to and fro while DEL runs does not stay on its network."""

from __future__ import annotations

import os
import struct
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from cni.errors import CniError
from cni.kernel import link, netns, rtnetlink
from cni.kernel.attributes import nest, number, text
from cni.kernel.rtnetlink import Message, Netlink
from cni.testing.network import Network
from cni.testing.place import fork

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.testing import Host, Sandbox

# <linux/if_link.h>
_IFNAME, _LINKINFO, _KIND, _NET_NS_FD, _NEW_IFINDEX = 3, 18, 1, 28, 49
ROUNDS = 10
LIMIT_S = 30
STAY_S = 0.001


def head(index: int) -> bytes:
    return struct.pack("=BxHiII", 0, 0, index, 0, 0)


def move(nl: Netlink, index: int, to: int) -> None:
    """Move a link to another namespace, where it has the same index."""
    body = head(index) + number(_NET_NS_FD, to) + number(_NEW_IFINDEX, index)
    with suppress(CniError):
        nl.batch([Message("move", rtnetlink.RTM_SETLINK, body=body)])


def make_decoy(nl: Netlink, index: int) -> None:
    body = head(index) + text(_IFNAME, "decoy") + nest(_LINKINFO, text(_KIND, "bridge"))
    flags = rtnetlink.NLM_F_CREATE | rtnetlink.NLM_F_EXCL
    with suppress(CniError):
        nl.batch([Message("make a decoy", rtnetlink.RTM_NEWLINK, flags, body=body)])


def move_to_and_fro(index: int, *, has_decoy: bool) -> None:
    """Move a link to another namespace and back; a decoy has its index meanwhile."""
    with (
        netns.own() as here,
        netns.open_netns("/run/netns/deeper") as there,
        Netlink(here) as near,
        Netlink(there) as far,
    ):
        end = time.monotonic() + LIMIT_S
        while time.monotonic() < end:
            time.sleep(STAY_S)
            move(near, index, there.fd)
            if has_decoy:
                make_decoy(near, index)
                time.sleep(STAY_S)
                with suppress(CniError):
                    link.remove(near, "decoy")
            move(far, index, here.fd)


@contextmanager
def restless(sandbox: Sandbox, index: int, *, has_decoy: bool) -> Iterator[None]:
    child = fork()
    if child == 0:
        try:
            sandbox.place.enter()
            move_to_and_fro(index, has_decoy=has_decoy)
        finally:
            os._exit(1)
    try:
        time.sleep(0.1)
        yield
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


@pytest.mark.parametrize("has_decoy", [True, False], ids=["decoy", "alone"])
@pytest.mark.parametrize("how", ["gone", "ack"])
def test_a_link_that_moves_to_and_fro_is_removed(host: Host, how: str, *, has_decoy: bool) -> None:
    net = Network(host)
    host.sandbox("deeper")
    for name in (f"c{each}" for each in range(ROUNDS)):
        added = net.add(name)
        [inner] = added.sandbox.json(["ip", "-j", "link", "show", "eth0"])
        keys = {"prevResult": added.answer.json}
        with restless(added.sandbox, inner["ifindex"], has_decoy=has_decoy):
            net.call("DEL", name, keys=keys, env={"PYCNI_DEL": how}).must()
            assert added.host_end not in host.links()
        assert "eth0" not in host.run(["ip", "-n", "deeper", "-o", "link"])
