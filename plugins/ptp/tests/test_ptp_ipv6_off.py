"""A host that switches IPv6 off on new links: the error names the reason, not a missing right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.testing.network import Network

if TYPE_CHECKING:
    from cni.testing import Host


def test_the_error_names_the_sysctl(host: Host) -> None:
    net = Network(host, "ptp")
    del net.conf["bridge"]
    host.sandbox("c1")
    host.run(["sysctl", "-w", "net.ipv6.conf.default.disable_ipv6=1"])
    before = host.snapshot()
    answer = net.call("ADD", "c1")
    assert answer.code == 100
    assert "failed to add IP addr fd01::1/128" in answer.msg
    assert "Set the sysctl net.ipv6.conf.default.disable_ipv6" in answer.json["details"]
    assert "CAP_NET_ADMIN" not in answer.json["details"]
    assert before.differences(host.snapshot()) == []
    host.run(["sysctl", "-w", "net.ipv6.conf.default.disable_ipv6=0"])
    net.call("ADD", "c1").must()
