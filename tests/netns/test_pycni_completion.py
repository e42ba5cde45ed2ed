"""Completion in shells, and the manual page."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import pytest

from plugin_table import declared
from tests.netns.test_pycni_people import VERBS, as_nobody, world

if TYPE_CHECKING:
    from tests.netns.attached_world import World

__all__ = ["world"]

pytestmark = pytest.mark.modes("warm")

# Any plugin whose name begins no other name.
PLUGIN = max((name for plugin in declared() for name in plugin.names), key=len)
COMPLETED = {
    "": {"add", "check", "del", "gc", "networks", "show", "ipam", "warm", "completion", "man"},
    "ad": {"add"},
    "warm ": {"status", "start", "stop", "units"},
    "add ": {"web"},
    "add web ": {"c1", "c2"},
    "del web ": {"c1"},
    "check web c": {"c1"},
    "del web -i net1 ": {"c1"},
    "add --timeout ": set(),
    "gc web --dr": {"--dry-run"},
    "completion ": {"bash", "zsh", "fish"},
    "ipam list ": {"web"},
    f"schema {PLUGIN[:-1]}": {PLUGIN},
    "show nope": set(),
}


# A line of its own that is no candidate.
MARK = "=== end of a line ==="


def test_bash_completes(world: World) -> None:
    world.attach("c1")
    world.host.sandbox("c2")
    script = f'pycni() {{ {world.command} "$@"; }}\neval "$({world.command} completion bash)"\n'
    for line in COMPLETED:
        words = ["pycni", *line.split(" ")]
        listed = " ".join(f"'{each}'" for each in words)
        script += (
            f"COMP_WORDS=({listed}); COMP_CWORD={len(words) - 1}\n"
            f"_pycni {world.command}\n"
            f"printf '%s\\n' \"${{COMPREPLY[@]}}\" '{MARK}'\n"
        )
    *printed, rest = world.host.run(["bash", "-c", script]).split(f"{MARK}\n")
    assert rest == ""
    for (line, expected), each in zip(COMPLETED.items(), printed, strict=True):
        found = set(each.split())
        assert found >= expected if not line else found == expected, line


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_right_for_their_shells(world: World, shell: str) -> None:
    script = world.ok("completion", shell)
    assert "complete -- " in script
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    assert world.host.run([shell, "-n"], script) == ""


def test_completion_is_silent_where_nothing_may_be_read(world: World) -> None:
    world.attach("c1")
    done = as_nobody(world, "complete", "--", "del", "web", "")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_manual_has_every_verb_and_option(world: World) -> None:
    page = world.ok("man")
    assert page.startswith('.TH PYCNI 1 "" "pycni ')
    told = page.replace("\\-", "-")
    for verb in (*VERBS, "networks", "version", "warm units", "completion", "man"):
        name = re.sub(r" (web|--).*", "", verb)
        assert f".SS pycni {name}" in told
    options = {
        option
        for verb in ("add", "gc", "repair", "warm units")
        for option in re.findall(r"--[a-z-]+", world.ok(*verb.split(), "--help"))
    }
    assert {each for each in options - {"--help"} if each not in told} == set()
    assert ".SS pycni complete\n" not in told
