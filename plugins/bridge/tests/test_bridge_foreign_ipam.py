"""An ADD that fails after a foreign IPAM plugin has leased an address releases the address."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni.errors import Code
from cni.testing import make_command
from cni.testing.answer import Answer
from cni.testing.host import GO
from cni.testing.network import Network
from cni.testing.place import BARE_ENV

if TYPE_CHECKING:
    from cni.testing import Host

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not (GO / "host-local").exists(), reason="no Go plugins in /usr/lib/cni"),
]

SUBNET = "10.1.0.0/24"
LEASE = Path("/var/lib/cni/networks/net1/10.1.0.2")
IPAM = f"""#!/bin/sh
echo "$CNI_COMMAND" >>/run/calls
[ "$CNI_COMMAND" = ADD ] || exec {GO}/host-local
{{body}}
"""
LEASED = f"{GO}/host-local >/run/answer; touch /run/leased"
SLEEPS = f"{LEASED}; exec sleep 60"
IS_DEAF = f"trap '' TERM; {LEASED}; exec sleep 60"
IS_KILLED = f"{LEASED}; kill -KILL $$"
BABBLES = f"{LEASED}; echo no result"
REFUSES = """echo '{"code": 11, "msg": "later"}'; exit 1"""


class Foreign:
    """A network whose addresses a program of the test's takes by the Go plugin."""

    def __init__(self, host: Host, folder: Path, body: str) -> None:
        self.host = host
        self.path = f"{host.bindir}:{folder}"
        (folder / "odd").write_text(IPAM.format(body=body))
        (folder / "odd").chmod(0o755)
        self.net = Network(host, cniVersion="1.0.0", ipam={"type": "odd", "subnet": SUBNET})
        host.sandbox("c1")
        # The pool's folder is the Go plugin's, and stays.
        host.run(["mkdir", "-p", str(LEASE.parent)])
        self.before = host.snapshot()

    def add(self) -> Answer:
        return self.net.call("ADD", "c1", env={"CNI_PATH": self.path})

    def wait_for_lease(self) -> None:
        deadline = time.monotonic() + 60
        while not self.host.run(["find", "/run/leased"], check=False):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert self.host.run(["cat", str(LEASE)]).startswith("c1")

    def calls(self) -> list[str]:
        return self.host.run(["cat", "/run/calls"]).split()

    def left(self) -> list[str]:
        self.host.run(["rm", "-f", "/run/calls", "/run/leased", "/run/answer"])
        return self.before.differences(self.host.snapshot())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("body", [SLEEPS, IS_DEAF])
def test_a_stop_gives_the_address_back(host: Host, tmp_path: Path, body: str, number: int) -> None:
    foreign = Foreign(host, tmp_path, body)
    env = {
        "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/c1",
        "CNI_IFNAME": "eth0", "CNI_PATH": foreign.path,
    }  # fmt: skip
    process = host.place.popen(
        [str(host.bindir / "bridge")], json.dumps(foreign.net.conf), env=BARE_ENV | env
    )
    foreign.wait_for_lease()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    answer = Answer(process.returncode, out, err)
    assert answer.code == Code.TRY_AGAIN, answer
    assert answer.msg.startswith("interrupted by SIG")
    assert foreign.calls() == ["ADD", "DEL"]
    assert foreign.left() == []


@pytest.mark.parametrize("body", [IS_KILLED, BABBLES])
def test_an_ipam_that_ends_without_an_answer_gives_the_address_back(
    host: Host, tmp_path: Path, body: str
) -> None:
    foreign = Foreign(host, tmp_path, body)
    assert not foreign.add().ok
    assert foreign.calls() == ["ADD", "DEL"]
    assert foreign.left() == []


def test_an_ipam_that_refuses_is_not_asked_to_release(host: Host, tmp_path: Path) -> None:
    """DEL might release the address of an earlier attachment."""
    foreign = Foreign(host, tmp_path, REFUSES)
    answer = foreign.add()
    assert (answer.code, answer.msg, answer.stderr) == (11, "later", "")
    assert foreign.calls() == ["ADD"]
    assert foreign.left() == []


def test_a_time_out_of_the_runtime_undoes_the_add(host: Host, tmp_path: Path) -> None:
    foreign = Foreign(host, tmp_path, SLEEPS)
    conflist: dict[str, Any] = {"cniVersion": "1.0.0", "name": "net1", "plugins": [foreign.net.conf]}
    host.run(["mkdir", "/etc/cni/net.d"])
    host.run(["cp", "/dev/stdin", "/etc/cni/net.d/10.conflist"], json.dumps(conflist))
    command = str(make_command(tmp_path, host.bindir))
    # A busy machine may not come to the IPAM plugin in the shorter time.
    for limit_s in ("4", "30"):
        argv = [command, "add", "net1", "/run/netns/c1", "--timeout", limit_s]
        done = host.place.run(argv, env=BARE_ENV | {"CNI_PATH": foreign.path}, check=False)
        assert f"did not end within {limit_s} s" in done.stderr, done
        if host.run(["find", "/run/leased"], check=False):
            break
        host.run(["rm", "-f", "/run/calls"])
    # DEL of the plugin's own undo; the runtime then takes back the network.
    assert foreign.calls()[:2] == ["ADD", "DEL"]
    host.run(["rm", "-r", "/etc/cni/net.d"])
    assert foreign.left() == []
