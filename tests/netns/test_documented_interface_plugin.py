"""The interface plugin of docs/writing-a-plugin.md works as it is printed there."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import pytest

from plugin_table import ROOT
from tests.support import scene

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.testing import Host

pytestmark = pytest.mark.started

PAGE = (ROOT / "docs" / "writing-a-plugin.md").read_text()
IPAM = {"type": scene.IPAM, "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd01::/64"}]]}
CONF = {"cniVersion": "1.1.0", "name": "net1", "type": "isolated", "mtu": 1400, "ipam": IPAM}


@pytest.fixture(autouse=True)
def plugin(host: Host) -> Iterator[None]:
    """Save the plugin beside the others; the interpreter is the one that has the package."""
    [text] = re.findall(r"## An interface plugin\n.*?```python\n(.*?)```", PAGE, re.DOTALL)
    path = host.bindir / "isolated"
    path.write_text(text.replace("/usr/bin/env python3", sys.executable, 1))
    path.chmod(0o755)
    yield
    path.unlink()


def test_it_attaches_and_detaches(host: Host) -> None:
    sandbox = host.sandbox("c1")
    before = host.snapshot()
    answer = host.plugin("isolated", "ADD", CONF, netns=sandbox)
    assert answer.must()["interfaces"][0]["mtu"] == 1400
    assert sandbox.addresses("eth0") == ["10.1.0.2/24", "fd01::2/64"]
    attached = host.snapshot()
    assert host.plugin("isolated", "ADD", CONF, netns=sandbox).code == 105
    assert attached.differences(host.snapshot()) == []
    for netns in (sandbox.path, sandbox.path, "", "/run/netns/none"):
        host.plugin("isolated", "DEL", CONF, netns=netns).must()
    assert before.differences(host.snapshot()) == []


def test_an_add_that_fails_leaves_nothing(host: Host) -> None:
    sandbox = host.sandbox("c1")
    before = host.snapshot()
    conf = CONF | {"ipam": {**IPAM, "routes": [{"dst": "10.9.0.0/16", "gw": "99.0.0.1"}]}}
    assert host.plugin("isolated", "ADD", conf, netns=sandbox).code == 100
    assert before.differences(host.snapshot()) == []
