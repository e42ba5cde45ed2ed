"""bridge and static on real namespaces: packets, routes, the runtime's addresses, and that nothing stays."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.network import Network
from tests.support.command import Command

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host

GATEWAY, GATEWAY6 = "10.7.0.254", "fd07::fe"
DNS = {"nameservers": ["192.0.2.53"], "search": ["example.net"]}


def ipam(number: int) -> dict[str, Any]:
    return {
        "type": "static",
        "addresses": [
            {"address": f"10.7.0.{number}/24", "gateway": GATEWAY},
            {"address": f"fd07::{number}/64", "gateway": GATEWAY6},
        ],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": "10.9.0.0/16", "gw": "10.7.0.9"}],
        "dns": DNS,
    }


def network(host: Host, **keys: Any) -> Network:
    usual: dict[str, Any] = {"isGateway": True, "ipam": {"type": "static"}}
    return Network(host, **(usual | keys))


def test_two_containers_the_host_and_the_outside_in_both_families(host: Host) -> None:
    outside = host.outside
    net = network(host, ipMasq=True)
    before = host.snapshot()
    one = net.add("c1", keys={"ipam": ipam(5)})
    two = net.add("c2", keys={"ipam": ipam(6)})
    assert one.answer.json["dns"] == DNS
    assert one.sandbox.addresses("eth0") == ["10.7.0.5/24", "fd07::5/64"]
    assert sorted(host.addresses("br0")) == [f"{GATEWAY}/24", f"{GATEWAY6}/64"]
    routes = one.sandbox.json(["ip", "-j", "route"]) + one.sandbox.json(["ip", "-j", "-6", "route"])
    via = {(each["dst"], each["gateway"]) for each in routes if "gateway" in each}
    assert via == {("default", GATEWAY), ("10.9.0.0/16", "10.7.0.9"), ("default", GATEWAY6)}
    with two.sandbox.serve(80), host.serve(81), outside.sandbox.serve(82):
        assert one.sandbox.dial("10.7.0.6", 80).address == "10.7.0.5"
        assert one.sandbox.dial("fd07::6", 80).address == "fd07::5"
        assert one.sandbox.dial(GATEWAY, 81).address == "10.7.0.5"
        assert one.sandbox.dial(GATEWAY6, 81).address == "fd07::5"
        assert one.sandbox.dial(outside.address, 82).address == outside.host_address
        assert one.sandbox.dial(outside.address6, 82).address == outside.host_address6
    for container, number in ((one, 5), (two, 6)):
        net.check(container, keys={"ipam": ipam(number)}).must()
        net.delete(container.name, keys={"ipam": ipam(number), "prevResult": container.answer.json})
        assert container.sandbox.links() == ["lo"]
    later = [line for line in before.differences(host.snapshot()) if "c1" in line or "c2" in line]
    assert [line for line in later if "10.7.0." in line or "eth0" in line] == []


def test_settings_that_the_runtime_asks_for_are_on_the_link(host: Host) -> None:
    net = network(host)
    asked: dict[str, dict[str, Any]] = {
        "IP of CNI_ARGS": {"args": "IgnoreUnknown=1;IP=10.7.0.11/24,fd07::11/64;GATEWAY=10.7.0.254"},
        "args": {"keys": {"args": {"cni": {"ips": ["10.7.0.12/24", "fd07::12/64"]}}}},
        "capability": {"keys": {"runtimeConfig": {"ips": ["10.7.0.13/24", "fd07::13/64"]}}},
    }
    # Without gateways of its own the bridge takes the first address of the subnet, which is another one.
    net.conf["isGateway"] = False
    boxes = []
    for number, options in enumerate(asked.values(), 11):
        box = net.add(f"c{number}", **options)
        assert box.sandbox.addresses("eth0") == [f"10.7.0.{number}/24", f"fd07::{number}/64"]
        boxes.append(box)
        net.check(box, **options).must()
    with boxes[0].sandbox.serve(80):
        for box in boxes[1:]:
            assert box.sandbox.dial("10.7.0.11", 80).address == box.address
            assert box.sandbox.dial("fd07::11", 80).address == box.address6


def test_no_address_at_all_is_the_callers_error_and_leaves_no_link(host: Host) -> None:
    net = network(host)
    box = host.sandbox("c1")
    before = host.snapshot()
    answer = net.call("ADD", "c1")
    assert answer.msg.startswith("IPAM plugin returned missing IP config")
    assert box.links() == ["lo"]
    left = [line for line in before.differences(host.snapshot()) if "veth" in line or "c1" in line]
    assert left == []


def test_bridge_passes_on_refusals_and_checks_of_static(host: Host) -> None:
    net = network(host)
    host.sandbox("bad")
    malformed = {"ipam": {"type": "static", "addresses": [{"address": "10.7.0.5"}]}}
    answer = net.call("ADD", "bad", keys=malformed)
    assert (answer.code, answer.msg) == (
        7,
        "the 'address' field is expected to be in CIDR notation, got: '10.7.0.5'",
    )
    assert net.call("STATUS", "", netns="", keys=malformed, ifname="").code == 50
    assert net.call("STATUS", "", netns="", keys={"ipam": ipam(5)}, ifname="").must() == {}
    one = net.add("c1", keys={"ipam": ipam(5)})
    changed = ipam(5)
    changed["addresses"][0]["gateway"] = "10.7.0.1"
    answer = net.check(one, keys={"ipam": changed})
    assert (answer.code, answer.msg) == (104, "static: Failed to match addr 10.7.0.5 on interface eth0")
    assert f"its gateway is {GATEWAY}, expected 10.7.0.1" in answer.json["details"]
    # The file of the network was edited wrongly since, which must not keep the container from going.
    net.delete("c1", keys=malformed | {"prevResult": one.answer.json})
    assert one.sandbox.links() == ["lo"]


@pytest.mark.parametrize("netns", ["", "/run/netns/none", "/etc/hostname", "/run/netns/c1"])
def test_static_itself_leaves_nothing_whatever_is_asked(host: Host, netns: str) -> None:
    host.sandbox("c1")
    conf = {"cniVersion": "1.1.0", "name": "net1", "type": "static", "ipam": ipam(5)}
    # With this a warm server of the host exists before the comparison.
    result = host.plugin("static", "ADD", conf, netns="/run/netns/c1").must()
    before = host.snapshot(exact=True)
    for verb in ("ADD", "CHECK", "DEL", "DEL"):
        where = netns or ("" if verb == "DEL" else "/run/netns/c1")
        host.plugin("static", verb, conf | {"prevResult": result}, netns=where).must()
    for verb in ("GC", "STATUS"):
        conf["cni.dev/valid-attachments"] = []
        assert host.plugin("static", verb, conf, container_id="", ifname="").must() == {}
    changed = before.differences(host.snapshot(exact=True))
    assert [line for line in changed if "/run/pycni/warm" not in line] == []


def test_gc_and_repair_of_the_command_have_nothing_to_say_of_static(host: Host, tmp_path: Path) -> None:
    command = Command(tmp_path, host.bindir)
    bridge = {
        "type": "bridge",
        "bridge": "br0",
        "isGateway": True,
        "ipam": ipam(5),
        "capabilities": {"ips": True},
    }
    document = {"cniVersion": "1.1.0", "name": "net1", "plugins": [bridge]}
    host.run(["mkdir", "-p", "/etc/cni/net.d"])
    host.run(["cp", "/dev/stdin", "/etc/cni/net.d/net1.conflist"], json.dumps(document))
    box = host.sandbox("c1")
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}

    def pycni(*arguments: str, **more: str) -> str:
        done = command.run(host.place, *arguments, env=env | more)
        assert done.stderr == ""
        return done.stdout

    pycni("add", "net1", box.path, CAP_ARGS=json.dumps({"ips": ["10.7.0.42/24"]}))
    assert box.addresses("eth0") == ["10.7.0.42/24"]
    told = json.loads(pycni("gc", "net1", "--dry-run", "--dead-only", "--json"))
    assert (told["cannotTell"], told["stale"]) == ([], [])
    [outcome] = json.loads(pycni("repair", "net1", "--json"))["attachments"]
    assert (outcome["state"], outcome["problems"]) == ("well", [])
    box.run(["ip", "addr", "flush", "dev", "eth0"])
    [outcome] = json.loads(pycni("repair", "net1", "--json"))["attachments"]
    assert outcome["state"] == "repaired", outcome
    assert box.addresses("eth0") == ["10.7.0.42/24"]
    box.delete(settled=True)
    pycni("gc", "net1", "--dead-only")
    assert "10.7.0.42" not in host.run(["find", "/var/lib/cni", "/run/pycni", "-type", "f"])
