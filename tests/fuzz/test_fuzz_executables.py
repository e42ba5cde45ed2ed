"""The same through the executables: any bytes on stdin and in the environment, cold and warm."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import strategies as st

from cni.testing import Answer, Host, make_bindir, warm, why_no_namespaces
from cni.testing.executables import make_warm_bindir
from plugin_table import declared, packages
from tests.fuzz import configurations, inputs, place
from tests.fuzz.cases import cases, judge
from tests.fuzz.test_fuzz_environment import ENVIRONMENTS
from tests.support.subjects import PLUGINS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fuzz.conftest import Fuzz

CONFIGURATIONS = st.one_of([inputs.broken(configurations.valid(name)) for name in PLUGINS])
STDIN = st.binary(max_size=60) | CONFIGURATIONS.map(lambda conf: json.dumps(conf).encode())
CUT = st.builds(lambda text, at: text[: at % (len(text) + 1)], STDIN, st.integers(0, 500))
# Each of them is a process at least.
SHARES = {"warm": 0.2, "cold": 0.05}


def _call(bindir: Path, name: str, env: dict[str, str], stdin: bytes) -> bool:
    usual = {"PATH": os.environ["PATH"], "CNI_PATH": str(bindir)}
    given = usual | {key: value for key, value in env.items() if key != "CNI_PATH"}
    verb = env["CNI_COMMAND"]
    with place.restored() as before:
        answer = judge(_run(bindir / name, given, stdin), verb)
        if verb == "ADD" and answer.ok:
            removed = judge(_run(bindir / name, given | {"CNI_COMMAND": "DEL"}, stdin), "DEL")
            assert removed.ok, removed
        assert place.footprint().own == before.own
    return answer.ok


def _run(program: Path, env: dict[str, str], stdin: bytes) -> Answer:
    done = subprocess.run([program], input=stdin, env=env, capture_output=True, check=False, timeout=120)
    return Answer(done.returncode, done.stdout.decode(), done.stderr.decode(errors="replace"))


@pytest.mark.parametrize("served", SHARES)
def test_any_input_is_answered(served: str, fuzz: Fuzz, launcher: Path, tmp_path: Path) -> None:
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    table = packages(declared())
    bindir = make_bindir(tmp_path, table) if served == "cold" else make_warm_bindir(tmp_path, table, launcher)
    names = st.sampled_from(sorted(table))
    try_all = cases(SHARES[served], name=names, env=ENVIRONMENTS, stdin=STDIN | CUT)(_call)
    with Host(bindir) as host:
        warm.set_up(host.place)
        fuzz.run_inside(host, try_all, bindir)
