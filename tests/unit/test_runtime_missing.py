"""Chains with plugins of other suites that cannot be asked, and with plugins that are missing."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from cni.errors import CniError
from cni.runtime.cache import Entry
from cni.runtime.repair import Outcome, repair
from tests.unit.test_runtime_chain import TOLD, TWO, network, plugins, runtime

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cni.runtime.chain import Runtime
    from cni.runtime.network import Network
    from cni.testing.scripted import ScriptedPlugins

__all__ = ["plugins", "runtime"]

OLD_REFUSALS = {
    "libcni 0.8 and later": '{"code": 4, "msg": "unknown CNI_COMMAND: " + verb}',
    "libcni before 0.8": '{"code": 100, "msg": "unknown CNI_COMMAND: " + verb}',
}


@pytest.mark.parametrize("refusal", OLD_REFUSALS.values(), ids=OLD_REFUSALS)
def test_status_before_1_1_0_logs_plugins_of_other_suites(
    plugins: ScriptedPlugins, runtime: Runtime, capsys: pytest.CaptureFixture[str], refusal: str
) -> None:
    plugins.write("first", f"print(json.dumps({refusal})); sys.exit(1)")
    runtime.status(network({"type": "first"}, version="0.4.0"))
    assert plugins.order == ["PYCNI_STATUS first"]
    told = "pycni: plugin first is of another suite: STATUS came with cniVersion 1.1.0, this is 0.4.0\n"
    assert capsys.readouterr().err == told


def test_status_names_every_plugin_that_is_missing(plugins: ScriptedPlugins, runtime: Runtime) -> None:
    plugins.write("first", "print()")
    ipam = {"type": "nowhere"}
    chain = network({"type": "first", "ipam": ipam}, {"type": "second"}, {"type": "third"}, version="0.4.0")
    with pytest.raises(CniError) as failure:
        runtime.status(chain)
    for name in ("nowhere", "second", "third"):
        assert f'failed to find plugin "{name}"' in str(failure.value)


@pytest.mark.parametrize("gone", ["removed", "not executable", "no interpreter"])
def test_del_goes_on_without_a_plugin_that_is_missing(
    plugins: ScriptedPlugins, runtime: Runtime, tmp_path: Path, gone: str
) -> None:
    plugins.write("first")
    path = plugins.write("second")
    runtime.add(TWO, TOLD)
    if gone == "removed":
        path.unlink()
    elif gone == "not executable":
        path.chmod(0o644)
    else:
        path.write_text("#!/nowhere\n")
    calls: list[Callable[[], None]] = [
        partial(runtime.delete, TWO, TOLD),
        partial(runtime.gc, TWO, set()),
    ]
    for call in calls:
        with pytest.raises(CniError, match=r'plugin type="second" failed \(delete\)') as failure:
            call()
        assert "if second ever ran for this network" in failure.value.details
        assert "remove it from net.conflist" in failure.value.details
    assert plugins.order[2:] == ["DEL first", "DEL first", "GC first"]
    # Kept, so that DEL can be repeated with what the plugin needs.
    assert (tmp_path / "cni/results/net-c1-eth0").exists()
    plugins.write("second")
    runtime.delete(TWO, TOLD)
    assert list((tmp_path / "cni/results").iterdir()) == []


def test_a_failed_add_is_undone_without_the_missing_plugin(
    plugins: ScriptedPlugins, runtime: Runtime
) -> None:
    plugins.write("first")
    chain = network({"type": "first"}, {"type": "second"}, {"type": "third"})
    with pytest.raises(CniError, match=r'type="second" failed \(add\): failed to find') as failure:
        runtime.add(chain, TOLD, undo=True)
    assert plugins.order == ["ADD first", "DEL first"]
    assert 'failed to find plugin "third"' in failure.value.details


REFUSED = 'if verb.startswith("PYCNI"):\n    print("what?"); sys.exit(1)\n'


def checked(runtime: Runtime, chain: Network, folder: Path) -> Outcome:
    """Return the outcome of a dry run for an attachment whose namespace is there."""
    entry = Entry("net", "c1", "eth0", chain.text, "/proc/self/ns/net", result={"cniVersion": "1.0.0"})
    [outcome] = repair(runtime, [entry], folder, dry_run=True)
    return outcome


def test_a_script_that_refuses_in_its_own_way_is_checked(
    plugins: ScriptedPlugins, runtime: Runtime, tmp_path: Path
) -> None:
    plugins.write("first", REFUSED)
    outcome = checked(runtime, network({"type": "first"}, version="1.0.0"), tmp_path)
    assert (outcome.state, outcome.problems, outcome.unasked) == ("well", [], [])
    assert plugins.order == ["PYCNI_CHECK first", "CHECK first"]
    plugins.write("first", f'{REFUSED}print(json.dumps({{"code": 104, "msg": "lost"}})); sys.exit(1)')
    outcome = checked(runtime, network({"type": "first"}, version="1.0.0"), tmp_path)
    assert (outcome.state, outcome.problems) == ("differs", ["first: lost"])


def test_a_plugin_that_cannot_be_checked_is_named(
    plugins: ScriptedPlugins, runtime: Runtime, tmp_path: Path
) -> None:
    plugins.write("first")
    outcome = checked(runtime, network({"type": "first"}, version="0.3.1"), tmp_path)
    assert (outcome.state, outcome.unasked) == ("well", ["first"])
    assert plugins.order == ["PYCNI_CHECK first"]
