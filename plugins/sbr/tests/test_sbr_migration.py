"""A container of one suite is handed to the other one: no rule stays, and GC removes our record."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.testing import GO, OURS
from cni.testing.network import Network

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host, Sandbox

pytestmark = [
    pytest.mark.modes("warm"),
    pytest.mark.interop,
    pytest.mark.skipif(not (GO / "sbr").exists(), reason="containernetworking-plugins is not installed"),
]
POOL = {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}]]}
RECORDS = ["sh", "-c", "find /run/pycni/attachments -type f 2>/dev/null; true"]


def rules(sandbox: Sandbox) -> list[str]:
    return sandbox.run(["ip", "rule"]).splitlines()


@pytest.mark.parametrize(("first", "second"), [(OURS, GO), (GO, OURS)], ids=["ours first", "Go's first"])
def test_one_checks_and_removes_what_the_other_made(
    host: Host, first: Path | None, second: Path | None
) -> None:
    one = Network(host, cniVersion="1.0.0", isDefaultGateway=True, ipam=POOL).add("c1")
    before = rules(one.sandbox)
    sbr = Network(host, "sbr", cniVersion="1.0.0", prevResult=one.answer.json)
    for key in ("bridge", "ipam"):
        del sbr.conf[key]
    sbr.call("ADD", "c1", bindir=first).must()
    assert rules(one.sandbox) != before
    for bindir in (first, second):
        sbr.call("CHECK", "c1", bindir=bindir).must()
    sbr.call("DEL", "c1", bindir=second).must()
    assert rules(one.sandbox) == before
    gc = {"cni.dev/valid-attachments": [], "cniVersion": "1.1.0"}
    host.plugin("sbr", "GC", sbr.conf | gc, container_id="", ifname="").must()
    assert host.run(RECORDS) == ""
