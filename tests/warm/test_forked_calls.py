"""A call that is forked from a process with the imports done equals a start of the executable."""

from __future__ import annotations

import json
import subprocess
import sys
from ast import literal_eval
from typing import TYPE_CHECKING

import pytest

from cni.testing import Host, make_bindir, why_no_namespaces
from cni.testing.zygote import Zygote
from plugin_table import declared, packages
from tests.warm.conftest import ODD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cni.testing import Answer

CONF = {"cniVersion": "1.0.0", "name": "n", "type": "odd"}


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Host]]:
    """Yield a host whose calls are forked, and one whose calls start the executable."""
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    monkeypatch.syspath_prepend(str(ODD))
    bindir = make_bindir(tmp_path, packages(declared()) | {"odd": "cni_odd"})
    with Zygote(bindir) as zygote, Host(bindir, zygote) as forked, Host(bindir) as started:
        yield [forked, started]


def odd(host: Host, do: str = "", conf: dict[str, str] | None = None, **options: float) -> Answer:
    conf = CONF | {"do": do} | (conf or {})
    return host.plugin("odd", "ADD", conf, netns="/run/netns/none", timeout_s=options.get("timeout_s", 60))


def test_the_process_is_the_same_but_for_other_plugins(hosts: list[Host]) -> None:
    forked, started = (json.loads(odd(host).stderr.splitlines()[0]) for host in hosts)
    assert forked["pid"] != started["pid"]
    imported = set(forked.pop("modules").split()) - set(started.pop("modules").split())
    assert {name.split(".")[0] for name in imported} - set(sys.stdlib_module_names) <= {
        "cni",
        *(plugin.package for plugin in declared()),
    }
    assert (
        set(literal_eval(forked["descriptors"]))
        == set(literal_eval(started["descriptors"]))
        == {"0", "1", "2"}
    )
    different = {name for name in forked if forked[name] != started[name]}
    # The namespaces are those of two hosts.
    assert different <= {"pid", "parent", "namespaces", "descriptors", "frozen"}


def test_each_forked_call_is_a_fresh_process(hosts: list[Host]) -> None:
    for do in ("variable", "working directory", "umask", "import path", "open file"):
        assert odd(hosts[0], do).ok
    facts = [json.loads(odd(hosts[0]).stderr.splitlines()[0]) for _ in range(2)]
    assert facts[0].pop("pid") != facts[1].pop("pid")
    for each in facts:
        assert set(literal_eval(each.pop("descriptors"))) == {"0", "1", "2"}
    assert facts[0] == facts[1]


@pytest.mark.parametrize("do", ["error", "exit", "own descriptors", "output in a buffer"])
def test_a_forked_call_ends_as_a_started_one(hosts: list[Host], do: str) -> None:
    forked, started = (odd(host, do) for host in hosts)
    assert (forked.status, forked.stdout) == (started.status, started.stdout)


def test_a_large_configuration_arrives_and_a_call_that_hangs_is_ended(hosts: list[Host]) -> None:
    forked, started = (odd(host, "error", {"padding": "x" * 300_000}) for host in hosts)
    assert (forked.status, forked.stdout) == (started.status, started.stdout)
    with pytest.raises(subprocess.TimeoutExpired):
        odd(hosts[0], "wait", timeout_s=1)
    assert odd(hosts[0]).ok
