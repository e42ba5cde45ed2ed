"""A plugin that is asked to stop after any of its changes takes them back and says so; it needs no DEL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.errors import Code
from cni.testing.faults import TERM
from tests.netns.fault_world import (
    BACKENDS_OF_PARTS,
    COLD,
    CUT,
    WITH_STATE,
    Step,
    another_world,
    assert_none,
    busy_world,
    step_of,
    world,
)

if TYPE_CHECKING:
    from cni.testing.faults import Fault
    from cni.testing.snapshot import Snapshot
    from tests.netns.fault_world import World

__all__ = ["another_world", "busy_world", "world"]

# A brief run has both kinds of rules in test_faults_kill.py only.
pytestmark = pytest.mark.full(backend="iptables")


# Of a call that is no worker's second one.
FIRST = {"PYCNI_WARM": "on"}
# What a failed ADD leaves to the next one: folders, forwarding, chains of the kernel's.
STAYING = """
umask 077
mkdir -p /run/pycni/attachments /run/pycni/dns /run/pycni/helpers
touch /run/pycni/boot.lock
cat /proc/sys/kernel/random/boot_id > /run/pycni/boot
umask 022
mkdir -p /run/pycni/bridges /run/pycni/hostports/by-owner /run/pycni/hostports/adopted
mkdir -p /var/lib/cni/networks/net1
sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
for program in iptables ip6tables; do
    for chain in PREROUTING OUTPUT POSTROUTING; do
        $program -t nat -A $chain -j ACCEPT
        $program -t nat -D $chain -j ACCEPT
    done
    $program -t filter -A FORWARD -j ACCEPT
    $program -t filter -D FORWARD -j ACCEPT
done
"""


def stop_add(world: World, step: Step, fault: Fault, env: dict[str, str], before: Snapshot) -> list[str]:
    """Ask an ADD to stop; tell what went wrong. Afterwards the plugin's part is not there."""
    answer = world.call_at(step, fault, env)
    if not fault.was_met(answer):
        return [f"was not reached: {answer}"]
    if answer.ok:
        # It was asked when it had answered, so what it has made stays.
        world.delete_one(step.plugin, CUT)
        return ([] if fault.point == "answer.written" else ["it goes on"]) + world.left(before)
    told = (answer.code, answer.msg)
    wrong = [] if told == (Code.TRY_AGAIN, "interrupted by SIGTERM") else [f"it says: {answer}"]
    wrong += [line for line in answer.stderr.splitlines() if "could not undo" in line]
    return wrong + world.left(before)


def stop_del(world: World, step: Step, fault: Fault, env: dict[str, str]) -> list[str]:
    """Ask a DEL to stop; tell what went wrong."""
    answer = world.call(step.plugin, step.verb, CUT, fault.env | env)
    if not fault.was_met(answer):
        return [f"was not reached: {answer}"]
    return [] if answer.ok or answer.code == Code.TRY_AGAIN else [f"it says: {answer}"]


@pytest.mark.quick(backend="nftables", env={})
@pytest.mark.full(env=COLD)
@pytest.mark.parametrize(("backend", "plugin"), BACKENDS_OF_PARTS)
@pytest.mark.parametrize("env", [COLD, {}], ids=["cold", "warm"])
def test_an_add_that_is_asked_to_stop_anywhere(
    busy_world: World, backend: str, plugin: str, env: dict[str, str]
) -> None:
    world, step = busy_world, step_of(plugin, "ADD")
    positions = world.positions(step, env)
    world.prepare(step)
    before = world.host.snapshot()
    found = {each: stop_add(world, step, each._replace(action=TERM), env, before) for each in positions}
    assert_none(found)
    world.delete(CUT)
    world.add(CUT)
    assert world.reaches(CUT)
    assert world.is_calm()


@pytest.mark.parametrize(("backend", "plugin"), [each for each in BACKENDS_OF_PARTS if each[1] in WITH_STATE])
def test_the_first_add_of_a_host_that_is_asked_to_stop_anywhere(
    world: World, another_world: World, backend: str, plugin: str
) -> None:
    """It makes what all containers share, and takes that away again, so that each one is the first."""
    step = step_of(plugin, "ADD")
    for each in (world, another_world):
        each.host.run(["sh", "-e"], STAYING)
    positions = [at for at in another_world.positions(step) if at.point != "answer.written"]
    world.prepare(step)
    before = world.host.snapshot()
    found = {at: stop_add(world, step, at._replace(action=TERM), FIRST, before) for at in positions}
    assert_none(found)


@pytest.mark.parametrize(("backend", "plugin"), BACKENDS_OF_PARTS)
def test_a_del_that_is_asked_to_stop_anywhere(busy_world: World, backend: str, plugin: str) -> None:
    world, step = busy_world, step_of(plugin, "DEL")
    before = world.host.snapshot()
    found = {}
    for each in world.positions(step):
        world.prepare(step)
        found[each] = stop_del(world, step, each._replace(action=TERM), {})
        world.delete(CUT)
        found[each] += world.left(before)
    assert_none(found)
    assert world.is_calm()
