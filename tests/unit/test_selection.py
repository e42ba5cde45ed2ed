"""make test, make test-quick and make test PLUGIN= run what docs/testing.md says."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from plugin_table import ROOT, declared
from tests.support import scene

EVERY_PLUGIN = "tests/netns/test_every_plugin.py"


def collect(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def selected(*arguments: str) -> list[str]:
    found = [line for line in collect(*arguments).stdout.splitlines() if "::" in line]
    assert found
    return found


@pytest.mark.parametrize("is_folder", [True, False])
def test_the_tests_of_a_plugin(*, is_folder: bool) -> None:
    plugin, other = [each for each in declared() if not each.needs_kernel][-1::-2][:2]
    folder = f"plugins/{plugin.folder.name}/"
    # To collect the tests of all folders takes two seconds of CPU.
    folders = ["plugins"] if is_folder else [folder, f"plugins/{other.folder.name}"]
    found = selected("--plugin", plugin.folder.name if is_folder else plugin.names[0], EVERY_PLUGIN, *folders)
    of_folder = [each for each in found if each.startswith(folder)]
    others = [each for each in found if each not in of_folder]
    assert of_folder
    assert len(others) > 20
    assert all(each.startswith(EVERY_PLUGIN) and plugin.names[0] in each for each in others)


def test_an_unknown_plugin_is_an_error_that_lists_the_known_ones() -> None:
    done = collect("--plugin", "nowhere", EVERY_PLUGIN)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "there is no plugin 'nowhere'; the plugins are " in done.stderr
    for plugin in declared():
        assert plugin.names[0] in done.stderr


def test_quick_tests_are_one_life_of_every_plugin_and_what_needs_no_host() -> None:
    found = selected("--quick", EVERY_PLUGIN, "plugins")
    lives = [each for each in found if each.startswith(EVERY_PLUGIN)]
    assert len(lives) == 3 * len([each for each in declared() if not each.needs_server])
    assert all("::test_one_life_in_the_newest_version[" in each for each in lives)
    others = [each for each in found if each not in lives]
    assert others
    assert not [each for each in others if "[cold" in each or "[warm" in each]


def test_a_brief_run_has_each_test_of_a_plugin_in_one_mode() -> None:
    files = [
        str(path) for path in sorted((ROOT / "plugins" / scene.INTERFACE / "tests").glob("test_*_[ap]*.py"))
    ]
    full, brief = (_modes_by_test(selected(*option, EVERY_PLUGIN, *files)) for option in ([], ["--brief"]))
    assert {"cold", "warm"} in full.values()
    assert full.keys() == brief.keys()
    of_plugin = {test: modes for test, modes in brief.items() if test.startswith("plugins/")}
    assert of_plugin
    assert all(modes in ({"warm"}, {""}) for modes in of_plugin.values())
    assert {"cold", "warm"} in brief.values()
    assert not any("single" in modes for modes in brief.values())


def _modes_by_test(tests: list[str]) -> dict[str, set[str]]:
    """Return the modes of each test, {""} for one without modes."""
    found: dict[str, set[str]] = {}
    for test in tests:
        mode = re.search(r"\[(cold|warm|single)\b", test)
        found.setdefault(re.sub(r"\[(cold|warm|single)\b", "[", test), set()).add(mode[1] if mode else "")
    return found
