"""ADD answers when packets to its IPv6 addresses are received: a link has its addresses earlier than that."""

from __future__ import annotations

import time
from ipaddress import ip_interface
from typing import TYPE_CHECKING

import pytest

from cni.interface import layer3
from cni.kernel import link
from cni.kernel.rtnetlink import Netlink
from cni.testing import Host, why_no_namespaces
from plugin_table import INTERFACE
from tests.support.late_kernel import make_late_bindir, waited_for
from tests.support.patience import LONG_S
from tests.support.subjects import chained, names, prepare

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cni.testing import Sandbox

SUBJECTS = [name for name in names(INTERFACE) if "ipam" in chained(name)]


@pytest.fixture(scope="module")
def late_bindir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_late_bindir(tmp_path_factory.mktemp("late"))


@pytest.fixture
def late_host(late_bindir: Path) -> Iterator[Host]:
    """Yield a host whose kernel is late for all plugins."""
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    with Host(late_bindir) as host:
        yield host


def addresses6(inside: Host | Sandbox) -> set[str]:
    # `ip` prints empty objects for what it leaves out.
    shown = inside.json(["ip", "-6", "-j", "addr", "show", "scope", "global"])
    return {each["local"] for holder in shown for each in holder.get("addr_info", []) if each}


@pytest.mark.parametrize("name", SUBJECTS)
def test_add_waits_for_all_addresses_that_it_sets(late_host: Host, name: str) -> None:
    prepare(late_host, name)
    sandbox, before = late_host.sandbox("c1"), addresses6(late_host)
    added = late_host.plugin(name, "ADD", chained(name), netns=sandbox)
    added.must()
    expected = addresses6(sandbox) | addresses6(late_host) - before
    assert expected
    assert waited_for(added) == expected


@pytest.fixture
def checking(host: Host) -> Sandbox:
    """Return a container with eth0, which is up and whose addresses the kernel checks for two seconds."""
    sandbox = host.sandbox("c1")
    sandbox.run(["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "far0"])
    for name, value in (("accept_dad", 1), ("dad_transmits", 2)):
        sandbox.run(["sysctl", "-q", "-w", f"net.ipv6.conf.eth0.{name}={value}"])
    for name in ("eth0", "far0"):
        sandbox.run(["ip", "link", "set", name, "up"])
    return sandbox


def _wait(address: str, within_s: float) -> float:
    start = time.monotonic()
    with Netlink() as nl:
        own = link.get(nl, "eth0")
        layer3.wait_until_received(nl, own, [ip_interface(f"{address}/64")], within_s=within_s)
    return time.monotonic() - start


def _is_received(sandbox: Sandbox, address: str) -> bool:
    return sandbox.run(["ip", "-6", "route", "get", address]).startswith("local ")


def test_the_wait_ends_when_the_kernel_has_made_the_route(checking: Sandbox) -> None:
    checking.run(["ip", "addr", "add", "fd09::2/64", "dev", "eth0"])
    assert not _is_received(checking, "fd09::2")
    checking.call(_wait, "fd09::2", LONG_S)
    assert _is_received(checking, "fd09::2")


def test_a_route_that_does_not_come_is_given_up(checking: Sandbox) -> None:
    checking.run(["ip", "addr", "add", "fd09::2/64", "dev", "eth0"])
    assert 0.1 <= checking.call(_wait, "fd09::7", 0.1) < LONG_S
