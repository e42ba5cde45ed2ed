"""A host with nothing in /opt, to install the bundle on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni.testing import Host, why_no_namespaces
from tests.support import scene

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.testing import Sandbox

PREFIX, BINDIR = Path("/opt/cni/bin/pycni"), Path("/opt/cni/bin")
BRIDGE: dict[str, object] = {
    "cniVersion": "1.1.0",
    "name": "net",
    "type": scene.INTERFACE,
    "isGateway": True,
    "ipMasq": True,
    "ipam": {
        "type": scene.IPAM,
        "ranges": [[{"subnet": "10.30.0.0/24"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    },
}


@pytest.fixture
def empty_opt() -> Iterator[Host]:
    """Yield a host with nothing in /opt."""
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    with Host(BINDIR) as host:
        host.run(["mount", "-t", "tmpfs", "tmpfs", "/opt"])
        yield host


def install(host: Host, bundle: Path) -> str:
    """Install a bundle to the usual places and give what that told.

    The self-test, which takes a second of CPU, is left to `test_install_checks.py`.
    """
    return host.run([str(bundle / "pycni"), "--install", "--no-self-test"])


def add_check_del(host: Host, sandbox: Sandbox, *, warm: str) -> None:
    """Attach and detach a sandbox; `warm` is what PYCNI_WARM says."""

    def call(verb: str, conf: dict[str, object]) -> object:
        env = {"PYCNI_WARM": warm}
        return host.plugin(scene.INTERFACE, verb, conf, netns=sandbox, env=env).must()

    after_add = {**BRIDGE, "prevResult": call("ADD", BRIDGE)}
    call("CHECK", after_add)
    call("DEL", after_add)
