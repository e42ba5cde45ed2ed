"""Messages of plugins when something fails: programs match the beginning, and the details help the user.

`tests/data/messages.json` has the messages. This file causes each failure.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import Host, why_no_namespaces
from plugin_table import ROOT
from tests.support import scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cni.testing import Answer

pytestmark = pytest.mark.modes("warm")

MESSAGES: list[dict[str, Any]] = json.loads((ROOT / "tests/data/messages.json").read_text())
WEB = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
IPAM = {"type": scene.IPAM, "subnet": "10.1.0.0/24"}
SMALL = {"type": scene.IPAM, "subnet": "10.9.0.0/30", "rangeStart": "10.9.0.1", "rangeEnd": "10.9.0.1"}
OPEN_TO_ALL = "/var/lib/cni/networks/open"


class World:
    """A host with a container c1 that is attached and publishes a port, and one, c2, that is not."""

    def __init__(self, host: Host) -> None:
        self.host = host
        for name in ("c1", "c2"):
            host.sandbox(name)
        self.result = self.bridge("ADD", "c1").must()
        self.portmap("ADD", "c1", prevResult=self.result).must()
        host.run(["ip", "link", "add", "dummy0", "type", "bridge"])
        host.run(["ip", "link", "add", "vxlan0", "type", "vxlan", "id", "1", "dstport", "4789"])
        host.run(["ip", "addr", "add", "10.7.0.1/24", "dev", "dummy0"])
        host.run(["mkdir", "-m", "777", OPEN_TO_ALL])

    def call(self, plugin: str, verb: str, name: str, conf: dict[str, Any] | str, **options: Any) -> Answer:
        """Call a plugin with a configuration, or with a raw stdin."""
        options = {"netns": f"/run/netns/{name}", "container_id": name} | options
        if isinstance(conf, dict):
            conf = {"cniVersion": "1.1.0", "name": "net1", "type": plugin} | conf
        return self.host.plugin(plugin, verb, conf, **options)

    def bridge(self, verb: str, name: str, /, **keys: Any) -> Answer:
        """Call bridge; keys override the configuration's."""
        usual = {"bridge": "br0", "isGateway": True, "ipam": IPAM}
        return self.call(scene.INTERFACE, verb, name, usual | keys)

    def ipam(self, verb: str, name: str, args: str = "", /, **keys: Any) -> Answer:
        """Call host-local; keys override those of `ipam`."""
        return self.call(scene.IPAM, verb, name, {"ipam": IPAM | keys}, args=args)

    def portmap(self, verb: str, name: str, /, *ports: dict[str, Any], **keys: Any) -> Answer:
        """Call portmap for ports, by default for the one of c1."""
        told = {"backend": "nftables", "runtimeConfig": {"portMappings": [*ports] or [WEB]}}
        return self.call(scene.PORTS, verb, name, told | keys)

    def changed(self, change: list[str], back: list[str], ask: Callable[[], Answer]) -> Answer:
        """Ask while something is not as it was."""
        self.host.run(change)
        try:
            return ask()
        finally:
            self.host.run(back)

    def result_of_another(self) -> dict[str, Any]:
        """Return a result of c2, as an interface plugin would have made it."""
        return json.loads(json.dumps(self.result).replace("/c1", "/c2").replace("10.1.0.2", "10.1.0.3"))  # type: ignore[no-any-return] # an object


IN_C1 = ["ip", "-n", "c1"]
FAILURES: dict[str, Callable[[World], Answer]] = {
    "an unknown version": lambda w: w.bridge("ADD", "c2", cniVersion="0.9.0"),
    "stdin that is no JSON": lambda w: w.call(scene.INTERFACE, "ADD", "c2", "{name: net1}"),
    "a network without a name": lambda w: w.bridge("ADD", "c2", name=""),
    "no container ID": lambda w: w.call(scene.INTERFACE, "ADD", "c2", {}, container_id=""),
    "an interface name with a slash": lambda w: w.call(scene.INTERFACE, "ADD", "c2", {}, ifname="a/b"),
    "an unknown verb": lambda w: w.call(scene.INTERFACE, "FETCH", "c2", {}),
    "a number that is none": lambda w: w.bridge("ADD", "c2", mtu="large"),
    "a namespace that is gone": lambda w: w.call(
        scene.INTERFACE, "ADD", "c2", {"ipam": IPAM}, netns="/run/netns/gone"
    ),
    "the host's own namespace": lambda w: w.call(scene.INTERFACE, "ADD", "c2", {}, netns="/proc/self/ns/net"),
    "an IPAM plugin that is not there": lambda w: w.bridge("ADD", "c2", ipam={"type": "nowhere"}),
    "a bridge that is none": lambda w: w.bridge("ADD", "c2", bridge="vxlan0"),
    "a bridge with another address": lambda w: w.bridge("ADD", "c2", bridge="dummy0"),
    "an interface that is there": lambda w: w.bridge("ADD", "c1"),
    "a MAC address that is none": lambda w: w.bridge("ADD", "c2", runtimeConfig={"mac": "zz"}),
    "hairpin and promiscuous mode": lambda w: w.bridge("ADD", "c2", hairpinMode=True, promiscMode=True),
    "a VLAN that is none": lambda w: w.bridge("ADD", "c2", vlan=5000),
    "an unknown backend": lambda w: w.bridge("ADD", "c2", ipMasq=True, ipMasqBackend="foo"),
    "a MAC address that was changed": lambda w: w.changed(
        [*IN_C1, "link", "set", "eth0", "address", "02:00:00:00:00:09"],
        [*IN_C1, "link", "set", "eth0", "address", w.result["interfaces"][2]["mac"]],
        lambda: w.bridge("CHECK", "c1", prevResult=w.result),
    ),
    "a STATUS of what cannot work": lambda w: w.bridge("STATUS", "c2", ipam={"type": "nowhere"}),
    "no ranges": lambda w: w.call(scene.IPAM, "ADD", "c2", {"ipam": {"type": scene.IPAM}}),
    "a subnet without a length": lambda w: w.ipam("ADD", "c2", subnet="10.1.0.0"),
    "a full pool": lambda w: w.call(scene.IPAM, "ADD", "c2", {"name": "small", "ipam": SMALL}),
    "an address that is the gateway's": lambda w: w.ipam("ADD", "c2", "IP=10.1.0.1"),
    "an address that another one has": lambda w: w.ipam("ADD", "c2", "IP=10.1.0.2"),
    "an address of no range": lambda w: w.ipam("ADD", "c2", "IP=10.9.9.9"),
    "an address that is none": lambda w: w.ipam("ADD", "c2", "IP=ten"),
    "an address that it has already": lambda w: w.ipam("ADD", "c1"),
    "a lease that is not there": lambda w: w.ipam("CHECK", "c2"),
    "a resolv.conf that is not there": lambda w: w.ipam("ADD", "c2", resolvConf="/nowhere"),
    "a pool that all may write to": lambda w: w.call(scene.IPAM, "ADD", "c2", {"name": "open", "ipam": IPAM}),
    "portmap without an interface": lambda w: w.portmap("ADD", "c2"),
    "a port that another one has": lambda w: w.portmap("ADD", "c2", prevResult=w.result_of_another()),
    "a port that is none": lambda w: w.portmap("ADD", "c2", WEB | {"hostPort": 70000}),
    "a protocol that is none": lambda w: w.portmap("ADD", "c2", WEB | {"protocol": "icmp"}),
    "a CHECK of portmap without a result": lambda w: w.portmap("CHECK", "c1"),
    "rules that were flushed": lambda w: w.changed(
        ["nft", "flush", "ruleset"], ["true"], lambda: w.portmap("CHECK", "c1", prevResult=w.result)
    ),
    "a loopback that is down": lambda w: w.call(scene.LOOPBACK, "CHECK", "c2", {"prevResult": w.result}),
}


@pytest.fixture(scope="module")
def world(mode: str, bindir: Path) -> Iterator[World]:
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    with Host(bindir) as host:
        yield World(host)


def test_all_failures_are_listed() -> None:
    assert [each["what"] for each in MESSAGES] == list(FAILURES)
    assert len(MESSAGES) >= 30


@pytest.mark.parametrize("expected", MESSAGES, ids=lambda each: each["what"])
def test_a_failure_says_what_and_what_to_do(world: World, expected: dict[str, Any]) -> None:
    answer = FAILURES[expected["what"]](world)
    assert answer.code == expected["code"], answer
    assert answer.msg.startswith(expected["msg"]), answer
    assert "\n" not in answer.msg
    assert expected["remedy"] in f"{answer.msg}; {answer.json.get('details', '')}", answer
