"""Changes by later plugins of a chain, and the fields that results of each version may have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import GO
from cni.testing.network import Network

if TYPE_CHECKING:
    from cni.testing import Host
    from cni.testing.network import Attached

FOLDER = Path("/run/later")
MAC = "02:00:00:00:00:77"
# As tuning of the Go suite, release 1.9.1: it sets MTU and MAC address, and only the latter in the result.
TUNING = """\
#!/usr/bin/python3
import json, os, subprocess, sys
conf = json.load(sys.stdin)
name = os.environ["CNI_IFNAME"]
enter = ["nsenter", "--net=" + os.environ["CNI_NETNS"], "ip", "link", "set", name]
subprocess.run([*enter, "mtu", str(conf["mtu"]), "address", conf["mac"], "promisc", "on"], check=True)
for each in conf["prevResult"]["interfaces"]:
    if each["name"] == name:
        each["mac"] = conf["mac"]
print(json.dumps(conf["prevResult"]))
"""
VERSIONS = ["0.4.0", "1.0.0", "1.1.0"]
DETAILS = {"mtu", "socketPath", "pciID"}
ROUTES = [
    {"dst": "0.0.0.0/0"},
    {"dst": "10.9.0.0/16", "mtu": 1300, "advmss": 1200},
    {"dst": "10.8.0.0/16", "gw": "10.1.0.9", "priority": 7, "table": 1000},
]


def tuned(net: Network, one: Attached, folder: Path) -> dict[str, Any]:
    """Return the chain's result after tuning has changed the container's link."""
    keys = {"type": "tuning", "prevResult": one.answer.json, "mtu": 1300, "mac": MAC, "promisc": True}
    conf = {key: net.conf[key] for key in ("cniVersion", "name")} | keys
    answer = net.host.plugin("tuning", "ADD", conf, netns=one.sandbox, container_id=one.name, bindir=folder)
    result = answer.must()
    assert isinstance(result, dict)
    return result


def install_tuning(host: Host) -> None:
    host.run(["mkdir", "-p", str(FOLDER)])
    host.run(["cp", "/dev/stdin", str(FOLDER / "tuning")], TUNING)
    host.run(["chmod", "755", str(FOLDER / "tuning")])


def assert_it_passes_and_stays(net: Network, one: Attached, result: dict[str, Any]) -> None:
    before = one.sandbox.settled_links("eth0")
    assert (before[0]["mtu"], before[0]["address"]) == (1300, MAC)
    net.call("CHECK", one.name, keys={"prevResult": result}).must()
    repaired = net.call("PYCNI_REPAIR", one.name, keys={"prevResult": result}).must()
    assert repaired == {"repaired": [], "failed": []}
    assert one.sandbox.settled_links("eth0") == before
    # The host end is the bridge plugin's own.
    net.host.run(["ip", "link", "set", one.host_end, "mtu", "1280"])
    assert "has MTU 1280, not 1400" in net.call("CHECK", one.name, keys={"prevResult": result}).msg


@pytest.mark.parametrize("version", VERSIONS)
def test_check_and_repair_accept_what_a_later_plugin_has_changed(host: Host, version: str) -> None:
    install_tuning(host)
    net = Network(host, cniVersion=version, isDefaultGateway=True, mtu=1400)
    one = net.add("c1")
    assert_it_passes_and_stays(net, one, tuned(net, one, FOLDER))


@pytest.mark.interop
@pytest.mark.skipif(not (GO / "tuning").exists(), reason="containernetworking-plugins is not installed")
@pytest.mark.parametrize("version", ["0.4.0", "1.0.0"])
def test_check_and_repair_accept_what_debians_tuning_has_changed(host: Host, version: str) -> None:
    net = Network(host, cniVersion=version, isDefaultGateway=True, mtu=1400)
    one = net.add("c1")
    host.run(["mkdir", "-p", "/run/cni"])
    assert_it_passes_and_stays(net, one, tuned(net, one, GO))


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", *VERSIONS])
@pytest.mark.parametrize("plugin", ["bridge", "portmap", "loopback"])
def test_a_result_has_the_fields_of_its_version_only(host: Host, plugin: str, version: str) -> None:
    """This holds for passed-through results too, whichever plugin set the fields."""
    ipam = {"type": "host-local", "subnet": "10.1.0.0/24", "routes": ROUTES}
    net = Network(host, cniVersion=version, isGateway=True, ipam=ipam)
    result = net.add("c1").answer.json
    if plugin != "bridge":
        for each in result["interfaces"]:
            each |= {"mtu": 1500, "socketPath": "/run/s", "pciID": "0000:00:04.0"}
        result["routes"] = ROUTES
        conf = {"cniVersion": version, "name": "net1", "type": plugin, "prevResult": result}
        port = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
        conf |= {"backend": "nftables", "runtimeConfig": {"portMappings": [port]}}
        result = host.plugin(plugin, "ADD", conf, netns="/run/netns/c1", container_id="c1").must()
    of_links = {key for each in result["interfaces"] for key in each} & DETAILS
    of_routes = {key for each in result["routes"] for key in each} - {"dst", "gw"}
    if version != "1.1.0":
        assert (of_links, of_routes) == (set(), set())
    else:
        assert of_links == ({"mtu"} if plugin == "bridge" else DETAILS)
        assert of_routes == {"mtu", "advmss", "priority", "table"}


@pytest.mark.parametrize("version", VERSIONS)
def test_routes_are_made_and_repaired_as_configured_in_every_version(host: Host, version: str) -> None:
    ipam = {"type": "host-local", "subnet": "10.1.0.0/24", "Routes": ROUTES}
    net = Network(host, cniVersion=version, isGateway=True, ipam=ipam)
    one = net.add("c1")
    show = ["ip", "route", "show", "table", "all", "type", "unicast"]
    before = sorted(one.sandbox.run(show).splitlines())
    text = json.dumps(before)
    assert "mtu 1300 advmss 1200" in text
    assert "table 1000" in text
    net.check(one).must()
    one.sandbox.run(["ip", "route", "del", "10.9.0.0/16"])
    one.sandbox.run(["ip", "route", "del", "10.8.0.0/16", "table", "1000"])
    assert not net.check(one).ok
    told = net.repair(one).must()
    assert told["failed"] == []
    assert sorted(one.sandbox.run(show).splitlines()) == before
    net.check(one).must()
