"""The backend firewalld, beside Debian's firewalld on a bus of the test's own, and beside the Go plugin."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from cni.testing import GO
from tests.interop.firewalld import Firewalld, why_no_firewalld
from tests.netns.chained_networks import ChainedNetwork, rules

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cni.testing import Host
    from cni.testing.wired import Container

Network = partial(ChainedNetwork, "firewall")
pytestmark = [
    pytest.mark.modes("warm"),
    pytest.mark.interop,
    pytest.mark.skipif(bool(why_no_firewalld()), reason=why_no_firewalld() or "it is there"),
]
PORT = 81


@pytest.fixture
def firewalld(host: Host, tmp_path: Path) -> Iterator[Firewalld]:
    assert host.outside
    (tmp_path / "firewalld").mkdir()
    with Firewalld(host, tmp_path / "firewalld", "nftables") as firewalld:
        yield firewalld


def sources(firewalld: Firewalld, zone: str = "trusted") -> set[str]:
    return set(firewalld.cmd(f"--zone={zone}", "--list-sources").split())


def of(container: Container) -> set[str]:
    return {f"{container.address}/32", f"{container.address6}/128"}


def reaches_outside(container: Container, host: Host, timeout_s: float = 1) -> set[bool]:
    outside = host.outside
    with outside.sandbox.serve(PORT):
        return {
            container.sandbox.reaches(each, PORT, timeout_s=timeout_s)
            for each in (outside.address, outside.address6)
        }


def test_one_life(host: Host, firewalld: Firewalld) -> None:
    """The automatic choice is firewalld, as it runs. Containers get through, and a reload is repaired."""
    network = Network(host)
    outside = host.outside
    ways = {network.net.subnet: outside.host_address, network.net.subnet6: outside.host_address6}
    for subnet, via in ways.items():
        outside.sandbox.run(["ip", "route", "add", str(subnet), "via", via])
    c1, c2 = network.container(1), network.container(2)
    assert reaches_outside(c1, host) == {False}
    for each in (c1, c2):
        network.call("ADD", each).must()
    network.call("ADD", c1).must()
    assert sources(firewalld) == of(c1) | of(c2)
    assert rules(host, "CNI-") == []
    assert reaches_outside(c1, host, 10) == {True}
    network.call("CHECK", c1).must()
    network.gc(c1, c2, verb="STATUS").must()
    firewalld.cmd("--reload")
    answer = network.call("CHECK", c1)
    assert (answer.code, answer.msg) == (104, f"{c1.address}/32 is no source of firewalld zone trusted")
    assert network.gc(c1, c2, verb="STATUS").code == 51
    network.call("PYCNI_REPAIR", c1).must()
    network.call("CHECK", c1).must()
    assert sources(firewalld) == of(c1)
    for _ in range(2):
        network.call("DEL", c1, conf={"prevResult": None}).must()
    assert sources(firewalld) == set()
    # What firewalld has lost by its reload is no error.
    network.call("DEL", c2).must()
    # Policies use the chains of the Go plugin.
    network.keys["ingressPolicy"] = "same-bridge"
    c3 = network.attach(3)
    assert sources(firewalld) == of(c3)
    assert len(rules(host, f" {network.net.bridge} ")) == 4
    network.call("CHECK", c3).must()
    for each in (c1, c2):
        host.run(["ip", "link", "delete", each.host_end])
    network.call("DEL", c3).must()
    assert rules(host, f" {network.net.bridge} ") == []


def test_gc_and_each_suite_remove_what_the_other_has_made(host: Host, firewalld: Firewalld) -> None:
    network = Network(host, backend="firewalld", firewalldZone="internal")
    c1, c2, c3 = (network.container(number) for number in (1, 2, 3))
    network.call("ADD", c1).must()
    network.call("ADD", c3).must()
    if (GO / "firewall").exists():
        network.call("ADD", c2, bindir=GO).must()
        network.call("CHECK", c2).must()
        network.call("CHECK", c1, bindir=GO).must()
        assert sources(firewalld, "internal") == of(c1) | of(c2) | of(c3)
        network.call("DEL", c1, bindir=GO).must()
        network.call("DEL", c2).must()
    else:
        network.call("DEL", c1).must()
    assert sources(firewalld, "internal") == of(c3)
    network.gc(c1).must()
    assert sources(firewalld, "internal") == set()


def test_errors_say_what_to_do(host: Host, firewalld: Firewalld) -> None:
    network = Network(host, backend="firewalld")
    c1, c2 = network.container(1), network.container(2)
    answer = network.call("ADD", c1, conf={"firewalldZone": "nowhere"})
    assert answer.code == 101
    assert "INVALID_ZONE" in answer.msg
    assert 'Create the zone "nowhere"' in answer.json["details"]
    # The second of two addresses is another zone's: the first one is given back.
    firewalld.cmd("--zone=drop", f"--add-source={c2.address6}/128")
    answer = network.call("ADD", c2)
    assert answer.code == 101
    assert "ZONE_CONFLICT" in answer.msg
    assert sources(firewalld) == set()
    # The caller's environment names the bus, and DEL finds it by the record.
    host.run(["mv", "/run/dbus", "/run/elsewhere"])
    assert network.call("ADD", c1).code == 50
    env = {"DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/run/elsewhere/system_bus_socket"}
    network.call("ADD", c1, env=env).must()
    network.call("DEL", c1).must()
    host.run(["mv", "/run/elsewhere", "/run/dbus"])
    assert sources(firewalld) == set()
    firewalld.close()
    answer = network.call("ADD", c1)
    assert (answer.code, answer.msg) == (
        50,
        "the firewall backend firewalld is not usable here: firewalld does not run",
    )
    network.call("DEL", c1).must()
