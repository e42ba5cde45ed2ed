"""Whole networks with tuning: podman's list without its firewall, traffic after changes, announcements."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.network import Network
from tests.support.command import Command

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host

MAC = "02:00:00:00:00:77"
# Podman's own list, without firewall. The empty tuning is podman's: it takes the MAC address of CNI_ARGS.
PODMAN: dict[str, Any] = {
    "cniVersion": "0.4.0",
    "name": "podman",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni-podman0",
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "routes": [{"dst": "0.0.0.0/0"}],
                "ranges": [[{"subnet": "10.88.0.0/16", "gateway": "10.88.0.1"}]],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "tuning"},
    ],
}
FILE = "/etc/cni/net.d/87-podman.conflist"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
PORTS = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}


class Podman:
    """A host with podman's network, and `pycni` to attach containers as libcni does."""

    def __init__(self, host: Host, folder: Path, tuning: dict[str, Any], backend: str) -> None:
        self.host = host
        self.command = Command(folder, host.bindir, is_forked=True)
        conf = json.loads(json.dumps(PODMAN))
        conf["plugins"][0]["ipMasqBackend"] = conf["plugins"][1]["backend"] = backend
        conf["plugins"][2] |= tuning
        host.run(["install", "-D", "-m", "644", "/dev/stdin", FILE], json.dumps(conf))

    def run(self, verb: str, name: str, args: str = "") -> Any:
        env = {"PATH": PATH, "CAP_ARGS": json.dumps(PORTS), "CNI_ARGS": args}
        shown = self.command.run(self.host.place, verb, "podman", f"/run/netns/{name}", env=env).stdout
        return json.loads(shown) if verb == "add" else shown


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
@pytest.mark.parametrize(
    "tuning",
    [{}, {"mtu": 1400, "sysctl": {"net.core.somaxconn": "500"}}],
    ids=["podmans-own", "with-settings"],
)
def test_podmans_list_works_and_leaves_nothing(
    host: Host, tmp_path: Path, tuning: dict[str, Any], backend: str
) -> None:
    podman = Podman(host, tmp_path, tuning, backend)
    host.sandbox("first")
    podman.run("add", "first")
    podman.run("del", "first")
    outside, web = host.outside, host.sandbox("web")
    before = host.snapshot()
    result = podman.run("add", "web", f"IgnoreUnknown=1;K8S_POD_NAME=web;MAC={MAC}")
    assert result["interfaces"][2]["mac"] == MAC
    assert f"link/ether {MAC}" in web.run(["ip", "link", "show", "eth0"])
    podman.run("check", "web")
    with web.serve(80):
        outside.sandbox.dial(outside.host_address, 8080)
        host.dial("10.88.0.3", 80)
    podman.run("del", "web")
    assert before.differences(host.snapshot()) == []


def neighbour(host: Host, address: str) -> list[str]:
    shown = host.json(["ip", "-j", "neigh", "show", address, "dev", "br0"])
    return [str(each.get("lladdr")) for each in shown]


def test_neighbours_learn_the_new_mac_address_at_once(host: Host) -> None:
    """They know the address of the container that had the IP address before."""
    net = Network(host, isGateway=True)
    first = net.add("c1")
    for address in (first.address, first.address6):
        first.sandbox.run(["ping", "-c", "1", "-W", "5", "fd01::1" if ":" in address else "10.1.0.1"])
        assert neighbour(host, address) == [first.mac]
    conf: dict[str, Any] = {"cniVersion": "1.1.0", "name": "net1", "type": "tuning", "mac": MAC}
    conf["prevResult"] = first.answer.json
    host.plugin("tuning", "ADD", conf, netns=first.sandbox).must()
    deadline = time.monotonic() + 20
    for address in (first.address, first.address6):
        # The kernel handles the packet after the call.
        while neighbour(host, address) != [MAC]:
            assert time.monotonic() < deadline, (address, neighbour(host, address))
            time.sleep(0.02)


def test_large_packets_pass_in_both_directions_after_a_change_of_the_mtu(host: Host) -> None:
    net = Network(host, isGateway=True)
    one, two = net.add("c1"), net.add("c2")
    conf: dict[str, Any] = {"cniVersion": "1.1.0", "name": "net1", "type": "tuning", "mtu": 1280}
    conf["prevResult"] = one.answer.json
    result = host.plugin("tuning", "ADD", conf, netns=one.sandbox).must()
    assert [each.get("mtu") for each in result["interfaces"][1:]] == [1280, 1280]
    for shown in (
        host.run(["ip", "link", "show", one.host_end]),
        one.sandbox.run(["ip", "link", "show", "eth0"]),
    ):
        assert "mtu 1280 " in shown
    # 1252 and 28 bytes of headers are 1280.
    for source, target in ((one, two), (two, one)):
        source.sandbox.run(["ping", "-c", "1", "-W", "5", "-s", "1252", target.address])
    # The host knows by the bridge, whose MTU is that of its smallest port, what is too large.
    done = host.place.run(["ping", "-c", "1", "-W", "1", "-M", "do", "-s", "1300", one.address], check=False)
    assert "message too long" in done.stdout + done.stderr
