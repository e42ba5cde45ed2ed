"""A container can do nothing in its own namespace that keeps DEL or GC from their end."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.testing import Answer, Host, Sandbox

pytestmark = pytest.mark.modes("warm")

CONF: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "two",
    "type": "sbr",
    "prevResult": {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "net1", "sandbox": "/run/netns/c1"}],
        "ips": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 0}],
    },
}
GC = {"cniVersion": "1.1.0", "name": "two", "type": "sbr", "cni.dev/valid-attachments": []}


@pytest.fixture
def sandbox(host: Host) -> Sandbox:
    """Return a container with net1."""
    sandbox = host.sandbox("c1")
    lines = [
        "link set lo up",
        "link add net1 type veth peer name far1",
        "addr add 10.1.0.2/24 dev net1",
        "link set net1 up",
        "link set far1 up",
    ]
    sandbox.run(["ip", "-batch", "-"], "".join(f"{line}\n" for line in lines))
    return sandbox


@pytest.fixture
def locked(host: Host, sandbox: Sandbox) -> Iterator[None]:
    """Attach the container, then hold the lock of its namespace, as each of its processes can."""
    call(host, "ADD").must()
    with Path(f"/proc/{host.pid}/root{sandbox.path}").open(encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def call(host: Host, verb: str) -> Answer:
    return host.plugin("sbr", verb, CONF, netns="/run/netns/c1", ifname="net1")


def rules(sandbox: Sandbox) -> list[str]:
    return [each["src"] for each in sandbox.json(["ip", "-j", "rule"]) if each["src"] != "all"]


@pytest.mark.usefixtures("locked")
def test_del_does_not_need_a_lock_that_the_container_holds(host: Host, sandbox: Sandbox) -> None:
    assert rules(sandbox) == ["10.1.0.2"]
    call(host, "CHECK").must()
    answer = call(host, "DEL")
    answer.must()
    assert "going on without the lock: could not lock /run/netns/c1" in answer.stderr
    assert rules(sandbox) == []


@pytest.mark.usefixtures("locked")
def test_gc_does_not_need_a_lock_that_the_container_holds(host: Host, sandbox: Sandbox) -> None:
    host.plugin("sbr", "GC", GC, container_id="", ifname="").must()
    assert rules(sandbox) == []
    assert host.run(["ls", "/run/pycni/attachments"]) == ""
