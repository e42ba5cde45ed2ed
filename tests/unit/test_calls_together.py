"""PYCNI_CALLS: several calls in one process, each with an answer of its own."""

from __future__ import annotations

import json
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest

from cni import skel
from cni.errors import CniError, Code
from cni.operations import calls
from cni.operations.repair import Repaired
from cni.request import Verb
from cni.runtime.derive import RuntimeArgs
from cni.runtime.together import Question, ask_all
from tests.unit.test_runtime_chain import network, plugins, runtime
from tests.unit.test_skel import ATTACHMENT, Recorder

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.conf import NetConf
    from cni.request import Request
    from cni.runtime.chain import Runtime
    from cni.testing.scripted import ScriptedPlugins

__all__ = ["plugins", "runtime"]

CONF = {"cniVersion": "0.3.1", "name": "net", "type": "rec"}
NAMES = ("eth0", "eth1", "eth2", "eth3")


def repair(_: NetConf, request: Request) -> Repaired:
    """Restore an attachment as a plugin does; two of `NAMES` fail, each in another way."""
    if request.ifname == "eth1":
        raise CniError(Code.MISMATCH, "the pair is gone", "attach the container again")
    if request.ifname == "eth2":
        raise ValueError(request.ifname)
    return Repaired([f"made {request.ifname} for {request.container_id}"])


def answered(given: Any, run: Callable[[NetConf, Request], Repaired] = repair) -> Any:
    stdout = BytesIO()
    plugin = Recorder().plugin()._replace(repair=run)
    env = {"CNI_COMMAND": "PYCNI_CALLS", **ATTACHMENT}
    skel.run(lambda: plugin, env, BytesIO(json.dumps(given).encode()), stdout)
    return json.loads(stdout.getvalue())


def asked(*names: str) -> list[calls.Call]:
    return [
        ({"CNI_COMMAND": "PYCNI_REPAIR", "CNI_CONTAINERID": f"of-{name}", "CNI_IFNAME": name}, CONF)
        for name in names
    ]


def test_each_call_has_its_own_answer() -> None:
    answers = calls.parse(answered(calls.document(CONF, asked(*NAMES))), len(NAMES))
    shown = [str(each) if isinstance(each, CniError) else json.loads(each)["repaired"] for each in answers]
    assert shown[0] == ["made eth0 for of-eth0"]
    assert shown[1] == "the pair is gone: attach the container again"
    assert shown[2].startswith("unexpected ValueError: eth2: this is a fault of the plugin")
    assert shown[3] == ["made eth3 for of-eth3"]


def test_a_step_for_all_runs_once_after_the_last_call() -> None:
    happened: list[object] = []

    def repair_and_forget(conf: NetConf, request: Request) -> Repaired:
        happened.append(request.ifname)
        calls.once(happened.append, [request.ifname.upper()])
        return repair(conf, request)

    assert "calls" in answered(calls.document(CONF, asked(*NAMES)), repair_and_forget)
    assert happened == [*NAMES, [name.upper() for name in NAMES]]
    happened.clear()
    # A call of its own waits for no other.
    calls.once(happened.append, ["alone"])
    assert happened == [["alone"]]


@pytest.mark.parametrize(
    "listed",
    [
        5,
        [5],
        [{"env": {"CNI_COMMAND": "ADD"}, "conf": CONF}],
        [{"env": {"CNI_COMMAND": "DEL"}, "conf": CONF}],
        [{"env": {"CNI_COMMAND": "PYCNI_CALLS"}, "conf": CONF}],
        [{"env": {"CNI_COMMAND": ["PYCNI_REPAIR"]}, "conf": CONF}],
        [{"env": {"CNI_COMMAND": "PYCNI_REPAIR"}, "conf": 5}],
        [{"conf": CONF}],
    ],
)
def test_other_calls_are_refused(listed: object) -> None:
    error = answered(CONF | {calls.KEY: listed})
    assert (error["code"], error["msg"]) == (7, '"pycni.calls" must be an array of calls')


@pytest.mark.parametrize(
    "response", [{}, {"calls": []}, {"calls": 5}, {"calls": [{"failed": True, "answer": {}}]}]
)
def test_a_response_without_an_answer_to_each_call_is_an_error(response: dict[str, Any]) -> None:
    with pytest.raises(CniError, match="the plugin did not answer 1 calls"):
        calls.parse(response, 1)


def test_a_plugin_of_another_suite_is_asked_one_by_one(plugins: ScriptedPlugins, runtime: Runtime) -> None:
    refusal = '{"code": 4, "msg": "unknown CNI_COMMAND: " + verb}'
    plugins.write("first", f"print(json.dumps({refusal})); sys.exit(1)")
    chain = network({"type": "first"})
    questions = [Question(b'{"name": "net"}', RuntimeArgs(name, "/nowhere", "eth0")) for name in ("c1", "c2")]
    assert ask_all(runtime, Verb.REPAIR, chain, chain.plugins[0], questions) == [b"", b""]
    assert plugins.order == ["PYCNI_CALLS first", *["PYCNI_REPAIR first"] * 2]
    # Go's plugins look for a version and a name before they look at the command.
    assert {"cniVersion", "name"} <= plugins.calls[0]["stdin"].keys()
    assert [each["env"]["CNI_CONTAINERID"] for each in plugins.calls[1:]] == ["c1", "c2"]


def test_a_plugin_that_is_missing_is_an_error_of_each(runtime: Runtime) -> None:
    chain = network({"type": "nowhere"})
    questions = [Question(b"{}", RuntimeArgs(name, "/nowhere", "eth0")) for name in ("c1", "c2")]
    answers = ask_all(runtime, Verb.REPAIR, chain, chain.plugins[0], questions)
    assert all(isinstance(each, CniError) and 'find plugin "nowhere"' in str(each) for each in answers)
    assert len(answers) == 2
