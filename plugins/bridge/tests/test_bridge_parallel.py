"""Many containers at once on one new bridge."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from cni.testing.network import Network

if TYPE_CHECKING:
    from cni.testing import Host


@pytest.mark.long
@pytest.mark.parametrize(("backend", "count"), [("iptables", 64), ("nftables", 24)])
def test_parallel_adds_and_dels_on_a_new_bridge_all_succeed(host: Host, backend: str, count: int) -> None:
    net = Network(host, isDefaultGateway=True, ipMasq=True, ipMasqBackend=backend)
    names = [f"c{number}" for number in range(count)]
    host.run(["sh", "-c", "; ".join(f"ip netns add {name}" for name in names)])
    with ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(lambda name: net.call("ADD", name), names))
        addresses = [address for answer in answers for address in (answer.must() and answer.addresses)]
        assert len(set(addresses)) == 2 * count
        assert len(host.links()) == 2 + count
        assert host.addresses("br0") == ["10.1.0.1/24", "fd01::1/64"]
        for answer in pool.map(lambda name: net.call("DEL", name), names):
            answer.must()
    after = host.snapshot()
    assert host.links() == ["lo", "br0"]
    assert not [line for line in (*after.rules, *after.files) if "net1" in line]


def test_adds_that_fail_beside_others_do_not_harm_them(host: Host) -> None:
    net = Network(host, isDefaultGateway=True)
    names = [f"c{number}" for number in range(24)]
    host.run(["sh", "-c", "; ".join(f"ip netns add {name}" for name in names)])
    refused = {"ipam": net.conf["ipam"] | {"routes": [{"dst": "10.9.0.0/16", "gw": "99.0.0.1"}]}}
    with ThreadPoolExecutor(8) as pool:
        calls = [
            pool.submit(net.call, "ADD", name, keys=refused if number % 2 else {})
            for number, name in enumerate(names)
        ]
        answers = [call.result() for call in calls]
    assert [answer.ok for answer in answers] == [number % 2 == 0 for number in range(len(names))]
    assert host.addresses("br0") == ["10.1.0.1/24", "fd01::1/64"]
    assert len(host.links()) == 2 + len(names) // 2
