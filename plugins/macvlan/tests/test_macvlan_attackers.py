"""A link that DEL cannot remove keeps its record and its address, and links without end hide none.

The kernel's list of many links takes several reads, and is inconsistent if a link is added in between.
"""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from cni.kernel import link
from cni.kernel.rtnetlink import Netlink
from cni.testing.place import BARE_ENV, fork

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.testing import Host, Sandbox

pytestmark = pytest.mark.modes("warm")

CONF: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "net1",
    "type": "macvlan",
    "master": "eth0",
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.10"}]]},
}
# Several reads of 32 KiB.
MANY, MORE, LIMIT_S = 40, 100, 20
KEPT = ["sh", "-c", "ls /run/pycni/attachments; cd /var/lib/cni/networks/net1 && ls -d 192.* 2>/dev/null"]


@pytest.fixture
def sandbox(host: Host) -> Sandbox:
    """Return an attached container, which has renamed its link."""
    assert host.outside
    sandbox = host.sandbox("c1")
    host.plugin("macvlan", "ADD", CONF, netns=sandbox).must()
    rename = ["link set eth0 down", "link set eth0 name hidden", "link set hidden up"]
    sandbox.run(["ip", "-batch", "-"], "".join(f"{line}\n" for line in rename))
    return sandbox


def add_links() -> None:
    with Netlink() as nl:
        end = time.monotonic() + LIMIT_S
        for number in range(MANY + MORE):
            if time.monotonic() > end:
                return
            link.create(nl, "add a link", "bridge", b"", link.identity(f"more{number}", ""))


@contextmanager
def adding_links(sandbox: Sandbox) -> Iterator[None]:
    """Add links to the container in a child; the block begins when it has many."""
    child = fork()
    if child == 0:
        try:
            sandbox.place.enter()
            add_links()
        finally:
            os._exit(1)
    try:
        while len(sandbox.links()) < MANY:
            time.sleep(0.02)
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_links_without_end_do_not_hide_the_containers_link(host: Host, sandbox: Sandbox) -> None:
    with adding_links(sandbox):
        host.plugin("macvlan", "DEL", CONF, netns=sandbox).must()
    assert "hidden" not in sandbox.links()
    assert host.run(["sh", "-c", f"{KEPT[2]}; true"]) == ""


def test_a_link_that_cannot_be_removed_keeps_its_address(host: Host, sandbox: Sandbox) -> None:
    """Without CAP_NET_ADMIN the kernel refuses."""
    before = host.run(KEPT)
    assert "192.0.2.10" in before
    variables = {
        "CNI_COMMAND": "DEL",
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": sandbox.path,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(host.bindir),
        "PYCNI_WARM": "off",
    }
    less = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", str(host.bindir / "macvlan")]
    done = host.place.run(less, json.dumps(CONF), env=BARE_ENV | variables, check=False)
    answer = json.loads(done.stdout)
    assert "operation not permitted" in answer["msg"]
    assert "hidden" in sandbox.links()
    assert host.run(KEPT) == before
    host.plugin("macvlan", "DEL", CONF, netns=sandbox).must()
    assert "hidden" not in sandbox.links()
    assert host.run(["sh", "-c", f"{KEPT[2]}; true"]) == ""
