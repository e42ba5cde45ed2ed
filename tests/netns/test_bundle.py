"""The frozen suite at work: its children, its workers, and what replaces it while it serves."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import product
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from cni.warm import control
from tests.netns.bundled_host import BINDIR, BRIDGE, PREFIX, add_check_del, empty_opt, install
from tests.support import scene
from tests.support.patience import wait_until
from tests.support.scene import has_helper
from tests.support.subjects import BACKENDS, NONE_VALID, chain, prepare, subjects_here
from tests.warm.calls import REFUSED, VERBS, WRONG, in_order

if TYPE_CHECKING:
    from cni.testing import Answer, Host, Sandbox

__all__ = ["empty_opt"]


def test_children_of_a_cold_call_do_not_get_the_bundles_libraries(empty_opt: Host, bundle: Path) -> None:
    install(empty_opt, bundle)
    delegate = BINDIR / "shows-environment"
    empty_opt.run(
        ["sh", "-c", f"printf '#!/bin/sh\\nenv >&2\\necho {{}}\\n' > {delegate}; chmod +x {delegate}"]
    )
    conf = {**BRIDGE, "ipam": {"type": delegate.name}}
    for given in ("", "/some/where"):
        environment = {"PYCNI_WARM": "off", "LD_LIBRARY_PATH": given}
        answer = empty_opt.plugin(scene.INTERFACE, "DEL", conf, env=environment)
        lines = answer.stderr.splitlines()
        assert "CNI_COMMAND=DEL" in lines
        assert [line for line in lines if line.startswith(("LD_", "_PYI"))] == (
            [f"LD_LIBRARY_PATH={given}"] if given else []
        )


def builds(host: Host) -> set[str]:
    """Return the builds whose servers run. Each must run from the folder of its build."""
    servers = host.call(control.find)
    for server in servers:
        # One without calls ends by itself.
        with suppress(FileNotFoundError):
            assert str(Path(f"/proc/{server.pid}/exe").readlink()) == f"{PREFIX}/{server.build}/bin/python3"
    return {server.build for server in servers}


def test_an_upgrade_loses_no_call_and_mixes_no_builds(empty_opt: Host, bundle: Path, tmp_path: Path) -> None:
    host = empty_opt
    host.run(["sh", "-c", "mkdir /etc/cni/pycni; echo '{\"idleSeconds\": 2}' > /etc/cni/pycni/warm.json"])
    new = tmp_path / "new"
    shutil.copytree(bundle, new)
    (new / "build").write_text("9.9.9-new")
    old_build = (bundle / "build").read_text()
    install(host, bundle)
    is_over = Event()
    answers: list[Answer] = []

    def keep_calling(number: int) -> None:
        sandbox = host.sandbox(f"c{number}")
        while not is_over.is_set():
            answers.extend(
                host.plugin(scene.INTERFACE, verb, BRIDGE, netns=sandbox, container_id=f"c{number}")
                for verb in ("ADD", "DEL")
            )

    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(keep_calling, number) for number in range(3)]
        try:
            wait_until(lambda: builds(host) == {old_build} and len(answers) > 10)
            install(host, new)
            wait_until(lambda: "9.9.9-new" in builds(host))
            so_far = len(answers)
            wait_until(lambda: len(answers) > so_far + 10)
        finally:
            is_over.set()
        for call in calls:
            call.result()
    assert [answer for answer in answers if answer.status] == []
    # The old one ends by itself, and then the next installation removes what it ran from.
    wait_until(lambda: f"{old_build}: nothing runs from it any more, removed" in install(host, new))
    assert host.run(["ls", str(PREFIX)]).split() == ["9.9.9-new", "bin", "installed.json", "lock"]


def test_workers_of_the_bundle_serve_many_calls(empty_opt: Host, bundle: Path) -> None:
    """Whatever a call imports late would leave traces in a worker, and end it; the server has it all."""
    install(empty_opt, bundle)
    sandbox = empty_opt.sandbox("c1")
    for _ in range(6):
        add_check_del(empty_opt, sandbox, warm="on")
    log = empty_opt.run(["cat", "/run/pycni/warm/log"])
    assert "server of build" in log
    assert "worker ends" not in log


def _call_all(host: Host, sandbox: Sandbox) -> dict[str, Answer]:
    """Make each call there is, right ones and wrong ones, and return the answers by what they are."""
    answers: dict[str, Answer] = {}
    # The start of a helper is one of the program.
    called = [each for each in subjects_here() if not has_helper(each)]
    prepare(host, *called)
    for subject, backend in product(called, BACKENDS):
        previous: dict[str, object] = {}
        for verb in VERBS:
            for conf in in_order(verb, chain(subject, backend)):
                asked = conf | previous | NONE_VALID
                answer = host.plugin(conf["type"], verb, asked, netns=sandbox)
                answers[f"{verb} {conf['type']} {backend}, {subject}"] = answer
                if verb == "ADD" and "ipam" in conf:
                    previous = {"prevResult": answer.must()}
    for what, (plugin, verb, wrong, more) in WRONG.items():
        answers[what] = host.plugin(plugin, verb, wrong, **{"netns": sandbox} | more)
    return answers


def test_workers_need_no_file_of_the_bundle(empty_opt: Host, bundle: Path) -> None:
    """Whatever they import late, when its files are gone or another build's, would be an error."""
    host = empty_opt
    install(host, bundle)
    # Elsewhere than on the host the second call starts a server.
    for _ in range(2):
        host.plugin(scene.LOOPBACK, "VERSION", {}).must()
    [server] = host.call(control.find)
    library = PREFIX / server.build / "lib"
    host.run(["mount", "-t", "tmpfs", "tmpfs", str(library)])
    sandbox = host.sandbox("c1")
    answers = _call_all(host, sandbox)
    right = {what: answer for what, answer in answers.items() if what not in WRONG}
    assert {what for what, answer in right.items() if not answer.ok} == {
        what for what in right if tuple(what.split(" ")[:2]) in REFUSED
    }
    told = {what: answer for what, answer in answers.items() if "Error" in answer.stdout + answer.stderr}
    assert told == {}
    assert {what: answer.code for what, answer in answers.items() if answer.code in {5, 999}} == {}
    # None of them were served without.
    assert [each.pid for each in host.call(control.find)] == [server.pid]
    assert host.call(control.status, server)["requests"] >= len(answers)
    assert not host.plugin(scene.LOOPBACK, "VERSION", {}, env={"PYCNI_WARM": "off"}).ok
