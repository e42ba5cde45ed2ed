"""Whatever the CNI_* variables say: an answer, nothing left of an ADD that failed, all gone after DEL."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from tests.fuzz import inputs
from tests.fuzz.cases import cases, judge
from tests.fuzz.place import BIN, FIFO, NETNS, RESOLV_CONF, call, footprint, restored
from tests.support import scene
from tests.support.subjects import PLUGINS, configuration

if TYPE_CHECKING:
    from cni.testing import Host
    from tests.fuzz.conftest import Fuzz

# What a process can get: bytes without NUL, read as Python reads them.
RAW = st.binary(max_size=20).map(lambda raw: os.fsdecode(raw.replace(b"\0", b"").replace(b"/", b"|")))
ODD_PATHS = ["", "/run", "/dev/null", "/nowhere/x", "x" * 5000, str(FIFO), str(RESOLV_CONF)]
PAIRS = [
    "IgnoreUnknown=1",
    "IgnoreUnknown=x",
    "K8S_POD_NAME=a",
    "MAC=02:00:00:00:00:07",
    "MAC=x",
    "IP=10.1.0.9",
]
MORE_PAIRS = ["IP=", "IP=10.1.0.1", "IP=fd00:1::5", "=", "a", "a=b=c", "", "IP=10.1.0.9/33"]
ARGS = st.lists(st.sampled_from(PAIRS + MORE_PAIRS) | RAW, max_size=3).map(";".join)
PATHS = ["", ":", f"/nowhere:{BIN}", "relative", str(BIN / scene.INTERFACE), "/run", f"{BIN}:{BIN}"]
ENVIRONMENTS = st.fixed_dictionaries(
    {
        "CNI_COMMAND": inputs.mostly("ADD", "DEL", "CHECK", "STATUS", "GC", "VERSION", "", "add") | RAW,
        "CNI_CONTAINERID": inputs.mostly("c1", "", "a" * 300, "../x", "_c", "c.1-2") | RAW,
        "CNI_NETNS": inputs.mostly(NETNS, "/proc/self/ns/net", "/proc/self/ns/mnt", *ODD_PATHS) | RAW,
        "CNI_IFNAME": inputs.mostly("eth0", "lo", "eth%d", ".", "a" * 16, "é" * 7, "a b", "\udcff") | RAW,
        "CNI_PATH": inputs.mostly(str(BIN), *PATHS) | RAW,
    },
    optional={"CNI_ARGS": ARGS, "PYCNI_DEL": st.sampled_from(["gone", "ack", "x"]), "LANG": RAW},
)
CONFIGURATIONS: dict[str, dict[str, Any]] = {name: configuration(name, "nftables") for name in PLUGINS}


def _call(name: str, env: dict[str, str]) -> bool:
    verb = env["CNI_COMMAND"]
    with restored() as before:
        answer = judge(call(name, env, CONFIGURATIONS[name]), verb)
        if verb == "ADD" and answer.ok:
            removed = judge(call(name, env | {"CNI_COMMAND": "DEL"}, CONFIGURATIONS[name]), "DEL")
            assert removed.ok, removed
            assert footprint().own == before.own
        elif verb == "ADD":
            assert footprint() == before, answer
        assert footprint().own == before.own
    return answer.ok


def test_variables_are_understood_or_refused(fuzz: Fuzz, host: Host) -> None:
    try_all = cases(1, name=st.sampled_from(sorted(CONFIGURATIONS)), env=ENVIRONMENTS)(_call)
    fuzz.run_inside(host, try_all)
