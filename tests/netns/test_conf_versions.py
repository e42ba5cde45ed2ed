"""The networks of conf/ can be used by the Go plugins as well: a node may have to go back to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni.runtime.conflists import load_file
from cni.testing.host import GO
from tests.support import scene

if TYPE_CHECKING:
    from cni.testing import Host

CONF = Path(__file__).parents[2] / "conf"
# Debian 12 has release 1.1.1; 1.1.0 of the specification came with release 1.6.
GO_1_1_1 = {"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"}


@pytest.mark.parametrize("path", sorted(CONF.glob("*.conflist")), ids=lambda path: path.name)
def test_every_version_of_a_network_is_one_that_go_1_1_1_knows(path: Path) -> None:
    document = json.loads(path.read_text())
    assert {document["cniVersion"], *document.get("cniVersions", [])} <= GO_1_1_1
    assert load_file(path).cni_version in GO_1_1_1


@pytest.mark.parametrize("path", sorted(CONF.glob("*.conflist")), ids=lambda path: path.name)
def test_the_go_plugins_delete_what_ours_have_attached(host: Host, path: Path) -> None:
    if not (GO / scene.INTERFACE).exists():
        pytest.skip("containernetworking-plugins is not installed")
    network, sandbox = load_file(path), host.sandbox("c1")
    plugin = network.plugins[0]
    conf = {**plugin.document, "name": network.name, "cniVersion": network.cni_version}
    # Rules of nftables are ours alone: docs/install.md says what to do before going back.
    conf.pop("ipMasqBackend", None)
    ifname = "lo" if plugin.type == scene.LOOPBACK else "eth0"
    result = host.plugin(plugin.type, "ADD", conf, netns=sandbox, ifname=ifname).must()
    after = {**conf, "prevResult": result}
    host.plugin(plugin.type, "DEL", after, netns=sandbox, ifname=ifname, bindir=GO).must()
    assert sandbox.links() == ["lo"]
