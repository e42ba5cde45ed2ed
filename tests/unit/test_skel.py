"""The skeleton: gates, the one document on stdout, undo."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni import skel
from cni.conf import NetConf
from cni.errors import CniError, Code
from cni.operations.garbage import Removal, Stale
from cni.operations.repair import Repaired
from cni.plugin import Plugin
from cni.request import Attachment, Request
from cni.result import Interface, Result
from cni.versions import SUPPORTED

if TYPE_CHECKING:
    from cni.operations.garbage import Finder
    from cni.undo import Undo

REFUSED = json.loads((Path(__file__).parents[1] / "data" / "refused_stdin.json").read_text())
ATTACHMENT = {"CNI_CONTAINERID": "c1", "CNI_NETNS": "/nowhere", "CNI_IFNAME": "eth0", "CNI_PATH": "/p"}


class Recorder:
    """A plugin that remembers what it was asked and fails where it is told to."""

    def __init__(self, fails: Exception | None = None) -> None:
        self.calls: list[tuple[str, Request]] = []
        self.undone: list[str] = []
        self._fails = fails

    def plugin(self, versions: tuple[str, ...] = SUPPORTED) -> Plugin[NetConf]:
        return Plugin(
            "rec",
            "records",
            NetConf,
            self._add,
            self._note("DEL"),
            self._note("CHECK"),
            self._find,
            None,
            versions,
        )

    def _find(self, conf: NetConf, request: Request) -> list[Finder]:
        self._note("GC")(conf, request)
        return []

    def _add(self, conf: NetConf, request: Request, undo: Undo) -> Result:
        undo.add("first", self.undone.append, "first")
        undo.add("second", self.undone.append, "second")
        self._note("ADD")(conf, request)
        return Result((Interface("eth0", sandbox=request.netns),))

    def _note(self, verb: str) -> Any:
        def run(conf: NetConf, request: Request) -> None:
            self.calls.append((verb, request))
            if self._fails:
                raise self._fails

        return run


class ClosedPipe(BytesIO):
    """Stdout that nobody reads."""

    def write(self, _: object) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def call(
    recorder: Recorder, verb: str, stdin: str | dict[str, Any], stdout: BytesIO | None = None, **env: str
) -> tuple[int, Any]:
    text = stdin if isinstance(stdin, str) else json.dumps(stdin)
    out = stdout or BytesIO()
    status = skel.run(recorder.plugin, {"CNI_COMMAND": verb} | ATTACHMENT | env, BytesIO(text.encode()), out)
    return status, json.loads(out.getvalue()) if out.getvalue() else None


@pytest.mark.parametrize("row", REFUSED, ids=[row["what"] for row in REFUSED])
def test_bad_stdin_is_refused_before_the_plugin_sees_it(row: dict[str, Any]) -> None:
    recorder = Recorder()
    stdin = "[" * 100_000 if row["stdin"] == "DEEP" else row["stdin"]
    status, error = call(recorder, "ADD", stdin)
    assert (status, error["code"]) == (1, row["code"])
    assert error["msg"].startswith(row["msg"])
    assert recorder.calls == []


@pytest.mark.parametrize("verb", ["DEL", "CHECK", "GC", "STATUS"])
def test_success_of_other_verbs_prints_nothing(verb: str) -> None:
    out = BytesIO()
    assert call(Recorder(), verb, {"cniVersion": "1.1.0", "name": "n"}, out) == (0, None)
    assert out.getvalue() == b""


@pytest.mark.parametrize(("verb", "first"), [("CHECK", "0.4.0"), ("GC", "1.1.0"), ("STATUS", "1.1.0")])
@pytest.mark.parametrize("version", SUPPORTED)
def test_a_verb_needs_the_version_that_brought_it(verb: str, first: str, version: str) -> None:
    status, error = call(Recorder(), verb, {"cniVersion": version, "name": "n"})
    if version >= first:
        assert status == 0
    else:
        assert (error["code"], error["msg"]) == (1, f"config version does not allow {verb}")


def test_a_plugin_older_than_the_verb_says_so() -> None:
    recorder = Recorder()
    out = BytesIO()
    stdin = BytesIO(b'{"cniVersion": "1.1.0", "name": "n"}')
    assert (
        skel.run(lambda: recorder.plugin(("0.4.0",)), {"CNI_COMMAND": "GC", "CNI_PATH": "/p"}, stdin, out)
        == 1
    )
    assert json.loads(out.getvalue())["msg"] == "plugin version does not allow GC"


def test_version_reads_neither_stdin_nor_other_variables() -> None:
    out = BytesIO()
    env = {"CNI_COMMAND": "VERSION", "CNI_NETNS": "dummy", "CNI_IFNAME": "a/b"}
    assert skel.run(Recorder().plugin, env, BytesIO(b"no JSON"), out) == 0
    assert out.getvalue() == (
        b'{"cniVersion":"1.1.0","supportedVersions":'
        b'["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}\n'
    )


def test_without_a_command_the_plugin_tells_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    out = BytesIO()
    assert skel.run(Recorder().plugin, {}, BytesIO(), out) == 0
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("CNI rec plugin v1.")
    assert second == "CNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"
    assert out.getvalue() == b""


def test_a_missing_version_counts_as_the_oldest() -> None:
    status, error = call(Recorder(), "CHECK", {"name": "n"})
    assert (status, error["msg"]) == (1, "config version does not allow CHECK")


def test_a_failing_add_is_undone_newest_first() -> None:
    recorder = Recorder(CniError(Code.POOL, "no address", "free one"))
    assert call(recorder, "ADD", {"cniVersion": "1.0.0", "name": "n"}) == (
        1,
        {"cniVersion": "1.0.0", "code": 102, "msg": "no address", "details": "free one"},
    )
    assert recorder.undone == ["second", "first"]


def test_an_add_that_succeeds_is_not_undone() -> None:
    recorder = Recorder()
    status, result = call(recorder, "ADD", {"cniVersion": "1.0.0", "name": "n"})
    assert (status, result["interfaces"]) == (0, [{"name": "eth0", "sandbox": "/nowhere"}])
    assert recorder.undone == []


def test_an_add_whose_answer_nobody_reads_is_undone() -> None:
    recorder = Recorder()
    assert call(recorder, "ADD", {"cniVersion": "1.0.0", "name": "n"}, ClosedPipe())[0] == 1
    assert recorder.undone == ["second", "first"]


def test_an_add_whose_result_cannot_be_shown_is_undone_and_answers_once() -> None:
    recorder = Recorder()
    status, error = call(recorder, "ADD", {"cniVersion": "0.2.0", "name": "n"})
    assert (status, error["code"], error["msg"]) == (1, 7, "cannot convert: no valid IP addresses")
    assert recorder.undone == ["second", "first"]


def test_a_fault_of_the_plugin_is_an_error_object_without_traceback() -> None:
    status, error = call(Recorder(ZeroDivisionError("oh")), "DEL", {"cniVersion": "1.0.0", "name": "n"})
    assert (status, error["code"], error["msg"]) == (1, 999, "unexpected ZeroDivisionError: oh")
    assert "test_skel.py" in error["details"]
    assert "Traceback" not in json.dumps(error)


def test_a_plugin_that_cannot_be_loaded_is_an_error_object() -> None:
    def load() -> Plugin[NetConf]:
        raise ImportError("no module")

    out = BytesIO()
    assert skel.run(load, {"CNI_COMMAND": "ADD"} | ATTACHMENT, BytesIO(), out) == 1
    assert json.loads(out.getvalue())["code"] == 999


def test_the_own_namespace_is_refused_before_anything_is_done() -> None:
    recorder = Recorder()
    status, error = call(recorder, "ADD", {"cniVersion": "1.0.0", "name": "n"}, CNI_NETNS="/proc/self/ns/net")
    assert (status, error["code"]) == (1, 8)
    assert error["msg"] == "plugin's netns and netns from CNI_NETNS should not be the same"
    assert recorder.calls == []


def test_del_with_the_own_namespace_touches_only_the_host() -> None:
    recorder = Recorder()
    assert call(recorder, "DEL", {"cniVersion": "1.0.0", "name": "n"}, CNI_NETNS="/proc/self/ns/net")[0] == 0
    assert recorder.calls[0][1].netns == ""


@pytest.mark.parametrize("value", ["1", "true", "TRUE"])
def test_the_own_namespace_is_allowed_on_demand(value: str) -> None:
    recorder = Recorder()
    netns = "/proc/self/ns/net"
    status, _ = call(
        recorder, "ADD", {"cniVersion": "1.0.0", "name": "n"}, CNI_NETNS=netns, CNI_NETNS_OVERRIDE=value
    )
    assert status == 0


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({}, None),
        ({"cni.dev/valid-attachments": None}, frozenset()),
        ({"cni.dev/valid-attachments": []}, frozenset()),
        (
            {"cni.dev/valid-attachments": [{"containerID": "c", "ifname": "eth0"}]},
            frozenset({Attachment("c", "eth0")}),
        ),
        ({"cni.dev/attachments": [{"containerid": "c", "IFNAME": "e"}]}, frozenset({Attachment("c", "e")})),
    ],
    ids=["absent", "null", "empty", "one", "the older key in another case"],
)
def test_gc_distinguishes_no_list_from_an_empty_one(extra: dict[str, Any], expected: object) -> None:
    recorder = Recorder()
    assert call(recorder, "GC", {"cniVersion": "1.1.0", "name": "n"} | extra)[0] == 0
    heard = [request.valid_attachments for _, request in recorder.calls]
    # Without a list nothing is looked for.
    assert heard == ([] if expected is None else [expected])


@pytest.mark.parametrize(("listed", "code"), [({}, 6), (5, 6), ([5], 7), ([{"ifname": "x"}], 7)])
def test_gc_with_a_broken_list_removes_nothing(listed: object, code: int) -> None:
    recorder = Recorder()
    status, error = call(
        recorder, "GC", {"cniVersion": "1.1.0", "name": "n", "cni.dev/valid-attachments": listed}
    )
    assert (status, error["code"]) == (1, code)
    assert recorder.calls == []


def own_verb(verb: str, plugin: Plugin[NetConf]) -> Any:
    stdout = BytesIO()
    document = {"cniVersion": "0.3.1", "name": "net", "cni.dev/valid-attachments": None}
    env = {"CNI_COMMAND": verb, **ATTACHMENT}
    skel.run(lambda: plugin, env, BytesIO(json.dumps(document).encode()), stdout)
    return json.loads(stdout.getvalue())


def test_a_verb_of_ours_is_unknown_where_a_plugin_has_it_not() -> None:
    recorder = Recorder()
    told = own_verb("PYCNI_REPAIR", recorder.plugin())
    assert (told["code"], told["msg"]) == (4, "unknown CNI_COMMAND: PYCNI_REPAIR")
    assert "PYCNI" not in told["details"]
    assert own_verb("PYCNI_GC_PLAN", recorder.plugin()._replace(finders=None)) == {"stale": []}
    assert recorder.calls == []


def test_verbs_of_ours_print_what_they_tell() -> None:
    def finders(conf: NetConf, request: Request) -> list[Finder]:
        assert request.valid_attachments == frozenset()
        stale = (Stale("link", "veth1", conf.name, "c1", "eth0"), Stale("file", "/x", reason="it is old"))
        return [lambda: [Removal(stale, pytest.fail)]]

    def repair(conf: NetConf, request: Request) -> Repaired:
        return Repaired([f"made {request.ifname} again"], [CniError(Code.POOL, "no address", "none is left")])

    plugin = Recorder().plugin()._replace(finders=finders, repair=repair)
    assert own_verb("PYCNI_GC_PLAN", plugin)["stale"] == [
        {"kind": "link", "name": "veth1", "network": "net", "containerID": "c1", "ifname": "eth0"},
        {"kind": "file", "name": "/x", "reason": "it is old"},
    ]
    assert own_verb("PYCNI_REPAIR", plugin) == {
        "repaired": ["made eth0 again"],
        "failed": [{"code": 102, "msg": "no address", "details": "none is left"}],
    }
