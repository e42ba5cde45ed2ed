"""A pair that DEL cannot remove keeps its address, until a DEL can."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cni.testing.network import Network
from cni.testing.place import BARE_ENV

if TYPE_CHECKING:
    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")

LEASES = ["sh", "-c", "ls /var/lib/cni/networks/net1 | grep ^10"]


def test_without_cap_net_admin(host: Host) -> None:
    net = Network(host)
    added = net.add("c1")
    before = host.run(LEASES)
    variables = {
        "CNI_COMMAND": "DEL",
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": added.sandbox.path,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(host.bindir),
        "PYCNI_WARM": "off",
    }
    less = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", str(host.bindir / "bridge")]
    done = host.place.run(less, json.dumps(net.conf), env=BARE_ENV | variables, check=False)
    assert "operation not permitted" in json.loads(done.stdout)["msg"]
    assert added.host_end in host.links()
    assert host.run(LEASES) == before == f"{added.address}\n"
    net.call("DEL", "c1").must()
    assert host.run(["sh", "-c", f"{LEASES[2]}; true"]) == ""
