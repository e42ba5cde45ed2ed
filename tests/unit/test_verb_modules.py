"""The skeleton imports the module of a verb when the verb is called."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from cni.conf import NetConf, Str
from cni.errors import Code
from cni.plugin import Plugin
from cni.testing.direct import call

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODULES = {
    "add": "from cni.result import Result\ndef add(conf, request, undo):\n    return Result()\n",
    "check": "def check(conf, request):\n    raise ValueError(conf.needed)\n",
    "gc": """\
from cni.operations.garbage import Removal, Stale
removed = []
def finders(conf, request):
    return [lambda: [Removal((Stale("file", str(request.required_valid())),), lambda: removed.append(1))]]
""",
    "status": "import no_such_module\n",
    "repair": """\
from cni.operations.repair import Repaired
def repair(conf, request):
    return Repaired(["nothing"])
""",
}
CONF = {"cniVersion": "1.1.0", "name": "net", "needed": "x"}


class Conf(NetConf):
    """A model with a required key."""

    needed: Str


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plugin[Any]]:
    package = tmp_path / "cni_sample"
    package.mkdir()
    (package / "__init__.py").touch()
    for name, text in MODULES.items():
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Plugin("sample", "a sample", Conf, package="cni_sample")
    for name in [name for name in sys.modules if name.startswith("cni_sample")]:
        del sys.modules[name]


def loaded() -> set[str]:
    return {name.removeprefix("cni_sample.") for name in sys.modules if name.startswith("cni_sample.")}


def test_a_verb_imports_its_own_module_only(plugin: Plugin[Any]) -> None:
    assert call(plugin, "ADD", CONF).must() == {"cniVersion": "1.1.0"}
    assert loaded() == {"add"}
    assert call(plugin, "VERSION", CONF).ok
    assert loaded() == {"add"}


def test_the_function_gets_the_model_and_its_errors_are_answered(plugin: Plugin[Any]) -> None:
    answer = call(plugin, "CHECK", CONF)
    assert (answer.code, answer.msg) == (Code.INTERNAL, "unexpected ValueError: x")
    assert call(plugin, "ADD", CONF | {"needed": None}).code == Code.INVALID_CONFIG


def test_gc_and_its_dry_run_share_the_finders(plugin: Plugin[Any]) -> None:
    valid: dict[str, Any] = {"cni.dev/valid-attachments": []}
    stale = {"stale": [{"kind": "file", "name": "frozenset()"}]}
    assert call(plugin, "PYCNI_GC_PLAN", CONF | valid).must() == stale
    assert sys.modules["cni_sample.gc"].removed == []
    answer = call(plugin, "GC", CONF | valid)
    assert answer.must() == {}
    assert answer.stderr == "sample: gc removes file frozenset(): its attachment is not valid"
    assert sys.modules["cni_sample.gc"].removed == [1]


def test_no_finder_runs_without_a_list_of_valid_attachments(plugin: Plugin[Any]) -> None:
    assert call(plugin, "PYCNI_GC_PLAN", CONF).must() == {"stale": []}
    answer = call(plugin, "GC", CONF)
    assert answer.must() == {}
    assert answer.stderr == "sample: gc was given no list of valid attachments, nothing is removed"
    assert sys.modules["cni_sample.gc"].removed == []
    # An IPAM plugin leaves that line to its caller.
    assert call(plugin, "GC", CONF | {"ipam": {"type": "sample"}}).stderr == ""


def test_gc_and_its_dry_run_go_on_to_the_ipam_plugin(plugin: Plugin[Any]) -> None:
    asked = CONF | {"ipam": {"type": "no-such-ipam"}, "cni.dev/valid-attachments": []}
    caller = plugin._replace(calls_ipam=True)
    for verb in ("GC", "PYCNI_GC_PLAN"):
        assert call(caller, verb, asked).msg == 'failed to find plugin "no-such-ipam" in path [/opt/cni/bin]'
    assert sys.modules["cni_sample.gc"].removed == [1]
    assert call(plugin, "GC", asked).must() == {}


def test_a_verb_without_a_module_succeeds_with_a_configuration_that_add_refuses(plugin: Plugin[Any]) -> None:
    refused = CONF | {"needed": 7}
    assert call(plugin, "ADD", refused).code == Code.INVALID_CONFIG
    for _ in range(2):
        assert call(plugin, "DEL", refused).must() == {}
    assert call(plugin, "DEL", refused | {"dns": 7}).code == Code.DECODING_FAILURE


def test_a_plugin_without_gc_has_nothing_stale_and_one_without_repair_says_so(plugin: Plugin[Any]) -> None:
    bare = Plugin("bare", "no verbs but ADD", Conf, plugin.find("add"))
    assert call(bare, "PYCNI_GC_PLAN", CONF).must() == {"stale": []}
    assert call(bare, "PYCNI_REPAIR", CONF).msg == "unknown CNI_COMMAND: PYCNI_REPAIR"
    assert call(plugin, "PYCNI_REPAIR", CONF).must() == {"repaired": ["nothing"], "failed": []}


def test_a_module_that_imports_an_absent_one_is_a_fault_and_no_missing_verb(plugin: Plugin[Any]) -> None:
    answer = call(plugin, "STATUS", CONF)
    assert answer.code == Code.INTERNAL
    assert "no_such_module" in answer.msg
