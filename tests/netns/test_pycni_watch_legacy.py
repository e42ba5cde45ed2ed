"""`pycni watch` where iptables is legacy iptables, which announces nothing: its programs close their lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.firewall.losses import LegacyTables
from cni.kernel.child import run
from tests.netns.attached_world import World
from tests.netns.firewall_hosts import equipped, plain, rules, suffixed
from tests.netns.watch_process import WatchProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")


@pytest.fixture
def world(host: Host, tmp_path: Path) -> Iterator[World]:
    with equipped(host, plain("legacy") | suffixed("legacy")):
        yield World(host, tmp_path, "iptables")


def test_flushed_tables_are_repaired_at_once(world: World) -> None:
    world.attach("c1", (8080, "tcp"))
    before = rules(world.host, "legacy")
    with WatchProcess(world) as watch:
        for flush in ("iptables -t nat -F", "printf '*nat\\nCOMMIT\\n' | ip6tables-restore"):
            world.host.run(["sh", "-c", flush])
            done = watch.next()
            assert "of legacy ip" in done["event"]
            assert [each["state"] for each in done["attachments"]] == ["repaired"]
            assert rules(world.host, "legacy") == before
        # The lock is taken by a program that only lists, too, and by a repair: neither is a loss.
        world.host.run(["iptables", "-t", "nat", "-S"])
        watch.settle()
        assert watch.is_silent()


def test_a_del_is_left_alone(world: World) -> None:
    world.attach("c1", (8080, "tcp"))
    before = rules(world.host, "legacy")
    world.attach("c2", (8081, "tcp"))
    with WatchProcess(world) as watch:
        world.ok("del", "web", "/run/netns/c2")
        watch.settle()
        assert watch.is_silent()
        assert rules(world.host, "legacy") == before


def notice() -> list[str]:
    """Delete a rule by a program that does not take the lock. Return what is noticed."""
    tables = LegacyTables()
    assert tables.are_loaded
    assert not tables.has_changed_size()
    delete = ["iptables-legacy", "-t", "nat", "-D", "POSTROUTING", "-j", "CNI-HOSTPORT-MASQ"]
    run(["/usr/bin/env", "XTABLES_LOCKFILE=/run/other.lock", *delete])
    assert tables.has_changed_size()
    return [each.text for each in tables.read()]


def test_a_program_without_the_lock_changes_the_size_of_a_table(host: Host) -> None:
    text = "*nat\n:CNI-HOSTPORT-MASQ -\n-A POSTROUTING -j CNI-HOSTPORT-MASQ\nCOMMIT\n"
    host.run(["iptables-legacy-restore"], text)
    assert host.call(notice) == ["a program deleted 1 rule of legacy iptables -t nat"]
