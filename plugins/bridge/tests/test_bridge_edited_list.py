"""DEL of bridge after the list was edited to values that ADD refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.errors import Code
from cni.testing.network import Network

if TYPE_CHECKING:
    from cni.testing import Host

FULL: dict[str, Any] = {"isGateway": True, "ipMasq": True, "ipMasqBackend": "nftables", "macspoofchk": True}
EDITS: dict[str, dict[str, Any]] = {
    "MTU": {"mtu": 65536},
    "VLAN": {"vlan": 5000},
    "trunk": {"vlanTrunk": [{"id": 9999}]},
    "bridge": {"bridge": "a/b"},
    "both modes": {"hairpinMode": True, "promiscMode": True},
    "no interface": {"disableContainerInterface": True},
}


@pytest.fixture
def net(host: Host) -> Network:
    """Return a network whose shared parts exist."""
    net = Network(host, **FULL)
    net.add("c0")
    net.delete("c0")
    return net


def test_del_removes_all_that_add_made(net: Network) -> None:
    before = net.host.snapshot()
    for number, edit in enumerate(EDITS.values(), 1):
        name = f"c{number}"
        sandbox = net.add(name).sandbox
        assert net.call("ADD", name, ifname="eth1", keys=edit).code == Code.INVALID_CONFIG
        net.delete(name, keys=edit)
        sandbox.delete()
        assert before.differences(net.host.snapshot()) == [], edit


@pytest.mark.parametrize("keys", [{"ipMasq": "yes"}, {"macspoofchk": 1, "mtu": 65536}])
def test_del_refuses_what_decides_about_rules(net: Network, keys: dict[str, Any]) -> None:
    net.add("c1")
    answer = net.call("DEL", "c1", keys=keys)
    assert (answer.code, answer.msg) == (
        Code.INVALID_CONFIG,
        f'"{next(iter(keys))}" must be a boolean, got a {"string" if "ipMasq" in keys else "number"}',
    )
    net.delete("c1")
