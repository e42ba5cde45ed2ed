"""The command `pycni` with values at the edge of what it takes, and with a full disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.netns.attached_world import World

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")


@pytest.fixture
def world(host: Host, tmp_path: Path) -> World:
    return World(host, tmp_path)


@pytest.mark.parametrize("seconds", ["inf", "nan", "1e12", "86401", "0", "-1"])
def test_a_timeout_that_no_clock_can_wait_is_refused_and_nothing_made(world: World, seconds: str) -> None:
    world.host.sandbox("c1")
    before = world.host.snapshot()
    done = world.run("add", "web", "c1", "--timeout", seconds)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("pycni: Invalid value for '--timeout'")
    assert before.differences(world.host.snapshot()) == []


def test_a_timeout_of_a_day_is_accepted(world: World) -> None:
    world.host.sandbox("c1")
    world.ok("add", "web", "c1", "--timeout", "86400")


@pytest.mark.parametrize("arguments", ["", "--help", "add --help", "warm --help", "warm start --help"])
def test_help_that_cannot_be_printed_is_one_line(world: World, arguments: str) -> None:
    for redirected, status, told in (
        (">/dev/full", "1", "pycni: cannot write to stdout: No space left on device\n"),
        ("| true", "0", ""),
        (">&-", "0", ""),
    ):
        done = world.host.place.run(["sh", "-c", f"{world.command} {arguments} {redirected}; echo $?"])
        assert (done.stdout, done.stderr) == (f"{status}\n", told)


def test_a_wrong_type_is_reported_in_words_of_json(world: World) -> None:
    world.host.sandbox("c1")
    done = world.run("add", "web", "c1", "--undo", CAP_ARGS='{"portMappings": "x"}')
    assert done.returncode == 1
    assert '"runtimeConfig.portMappings" must be an array of objects, got a string' in done.stderr
