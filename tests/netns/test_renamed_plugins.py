"""Plugins under other file names, as copies and links: cold and warm, called by a runtime and by bridge."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from cni import multicall
from cni.testing import Host, make_bindir, warm
from cni.testing.executables import make_warm_bindir
from cni.warm import control
from plugin_table import declared, packages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

WAYS = ("script", "cold", "warm")
PLACES: dict[str, Callable[[Path, Path], object]] = {
    "copy": shutil.copy,
    "hard link": os.link,
    "link": lambda old, new: new.symlink_to(old),
    "relative link": lambda old, new: new.symlink_to(old.name),
}
# Names that the projects in the wild use, and other word boundaries.
NAMES = {
    "cnv-bridge": "bridge",
    "buildkit-cni-bridge": "bridge",
    "my_host-local": "host-local",
    "v2.portmap": "portmap",
}
TABLE = {"bridge": "a", "host-local": "b", "local": "c", "x-bridge": "d"}


@pytest.fixture(params=WAYS)
def named(
    request: pytest.FixtureRequest, launcher: Path, tmp_path: Path
) -> Iterator[tuple[Host, dict[str, str]]]:
    table = packages(declared())
    way = request.param
    bindir = make_bindir(tmp_path, table) if way == "script" else make_warm_bindir(tmp_path, table, launcher)
    with Host(bindir) as host:
        if way == "warm":
            warm.set_up(host.place)
        yield host, {} if way == "warm" else {"PYCNI_WARM": "off"}
        assert bool(host.call(control.find)) == (way == "warm")


@pytest.mark.parametrize("place", PLACES)
def test_a_plugin_is_known_by_the_end_of_its_name(named: tuple[Host, dict[str, str]], place: str) -> None:
    host, env = named
    for name, plugin in NAMES.items():
        PLACES[place](host.bindir / plugin, host.bindir / name)
        about = host.plugin(name, "ADD", {}, env={**env, "CNI_COMMAND": ""})
        assert (about.status, about.stderr.splitlines()[0].split()[:2]) == (0, ["CNI", plugin])
    # All plugins answer this alike.
    assert "1.1.0" in host.plugin(name, "VERSION", {}, env=env).must()["supportedVersions"]


@pytest.mark.parametrize("place", PLACES)
def test_a_renamed_chain_attaches_and_detaches(named: tuple[Host, dict[str, str]], place: str) -> None:
    host, env = named
    for name, plugin in NAMES.items():
        PLACES[place](host.bindir / plugin, host.bindir / name)
    ipam = {"type": "my_host-local", "ranges": [[{"subnet": "10.1.0.0/24"}]]}
    conf = {"cniVersion": "1.0.0", "name": "n", "type": "cnv-bridge", "bridge": "br0", "ipam": ipam}
    sandbox = host.sandbox("c1")
    result = host.plugin("cnv-bridge", "ADD", conf, netns=sandbox, env=env).must()
    assert result["ips"][0]["address"] == "10.1.0.2/24"
    host.plugin("cnv-bridge", "CHECK", conf | {"prevResult": result}, netns=sandbox, env=env).must()
    # By its usual name it is the same plugin.
    host.plugin("bridge", "DEL", conf, netns=sandbox, env=env).must()
    assert sandbox.links() == ["lo"]


def test_a_link_of_any_name_is_the_plugin_that_it_leads_to(named: tuple[Host, dict[str, str]]) -> None:
    host, env = named
    (host.bindir / "mynet").symlink_to("bridge")
    about = host.plugin("mynet", "ADD", {}, env={**env, "CNI_COMMAND": ""})
    assert about.stderr.startswith("CNI bridge plugin v")


def test_another_name_is_an_error_that_names_the_plugins(named: tuple[Host, dict[str, str]]) -> None:
    host, env = named
    for name in ("mybridge", "bridge2", "bridge-", "-", "local", "bridge-x"):
        shutil.copy(host.bindir / "bridge", host.bindir / name)
        answer = host.plugin(name, "ADD", {}, env=env)
        assert answer.code == 5
        assert f'the name "{name}"' in answer.msg
        assert ", ".join(sorted(packages(declared()))) in answer.json["details"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("bridge", "bridge"),
        ("x-bridge", "x-bridge"),
        ("y-x-bridge", "x-bridge"),
        ("y-bridge", "bridge"),
        ("my-host-local", "host-local"),
        ("my.local", "local"),
        ("hostlocal", ""),
        ("", ""),
        ("bridge-host", ""),
    ],
)
def test_the_longest_suffix_counts(name: str, found: str) -> None:
    assert multicall.resolve(name, TABLE) == found
