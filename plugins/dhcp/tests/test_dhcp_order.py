"""The helper takes leases in the order of their ends, as a server that does not answer takes time."""

from __future__ import annotations

import time
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import pytest

from cni.kernel.netns import open_netns
from cni.state import attachments
from cni.state.attachments import Key
from cni_dhcp import lease as leases
from cni_dhcp import records, serve
from cni_dhcp.lease import Identity, Lease

if TYPE_CHECKING:
    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")

ENDED_BEFORE_S = {"c1": 10, "c2": 40, "c3": 20, "c4": 30}


def key_of(name: str) -> Key:
    return Key("dhcp", "net1", name, "eth0")


def attended_first(path: str) -> list[str]:
    """Save leases that have ended, let the helper attend to one, and return those that it has attended to."""
    now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    identity = Identity(bytes.fromhex("020000000001"), {})
    with open_netns(path) as ns:
        for name, before_s in ENDED_BEFORE_S.items():
            address, server = IPv4Address("10.77.0.9"), IPv4Address("10.77.0.1")
            times = (now_s - 1000, now_s - 500, now_s - before_s)
            records.save(
                key_of(name), Lease(leases.BOUND, address, server, bytes(6), 1, identity, *times), ns
            )
    serve.tick(lambda: False)
    saved = {name: attachments.load(key_of(name)) for name in ENDED_BEFORE_S}
    return [name for name, each in saved.items() if each and each.values["state"] == leases.EXPIRED]


def test_the_lease_that_ends_first_comes_first(host: Host) -> None:
    sandbox = host.sandbox("c1")
    assert host.call(attended_first, sandbox.path) == ["c2"]
