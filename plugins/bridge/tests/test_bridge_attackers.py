"""A process with CAP_NET_ADMIN in a container's namespace cannot harm others by changing its links.

Each attack acts within the attacker's namespace only. The victim is another container.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.network import GATEWAY, Attached, Network
from tests.support.link_attacks import ATTACKS, attack

if TYPE_CHECKING:
    from cni.testing import Answer, Host

FULL: dict[str, Any] = {"isDefaultGateway": True, "mtu": 1400, "macspoofchk": True}


class Place:
    """A victim on one network and an attacker on another one, whose links have other indices."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.net = Network(host, **FULL)
        self.other = Network(
            host, name="net2", bridge="br1", ipam={"type": "host-local", "subnet": "10.2.0.0/24"}
        )
        sandbox = host.sandbox("victim")
        # The index that its link gets is free in the attacker's namespace.
        sandbox.run(["ip", "link", "add", "padding", "type", "bridge"])
        host.run(["ip", "link", "add", "padding", "type", "bridge"])
        self.victim = Attached("victim", sandbox, self.net.call("ADD", "victim"))
        attacker = self.other.add("attacker")
        self.sandbox, self.answer = attacker.sandbox, attacker.answer

    @property
    def host_end(self) -> str:
        """The attacker's host end."""
        return str(self.answer.json["interfaces"][1]["name"])

    def attack(self, *commands: str) -> None:
        """Run commands of `ip` in the attacker's namespace, with the words of `link_attacks`."""
        end, inner = self.link_of(self.victim), self.victim.sandbox.json(["ip", "-j", "link", "show", "eth0"])
        words = {
            "VICTIM_MAC": self.victim.mac,
            "VICTIM_ADDRESS": self.victim.address,
            "VICTIM": str(end["ifindex"]),
            "INNER": str(inner[0]["ifindex"]),
        }
        attack(self.sandbox, commands, words)

    def link_of(self, container: Attached) -> dict[str, Any]:
        """Return what the kernel says of a host end."""
        [found] = self.host.settled_links(container.host_end)
        return found

    def assert_victim_is_well(self, before: dict[str, Any]) -> None:
        """Assert that nothing of the victim has changed, and that it has its traffic."""
        assert self.link_of(self.victim) == before
        assert before["master"] == "br0"
        self.net.check(self.victim).must()
        self.victim.sandbox.run(["ping", "-c", "1", "-W", "5", GATEWAY])

    def call(self, verb: str, **options: Any) -> Answer:
        """Call the plugin for the attacker, with the result of its ADD."""
        return self.other.call(verb, "attacker", keys={"prevResult": self.answer.json}, **options)


@pytest.fixture
def place(host: Host) -> Place:
    return Place(host)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_check_does_not_trust_the_name_of_a_link_in_the_container(place: Place, attack: list[str]) -> None:
    before = place.link_of(place.victim)
    place.call("CHECK").must()
    place.attack(*attack)
    answer = place.call("CHECK")
    assert answer.code == 104
    text = answer.text
    assert place.victim.host_end not in text
    assert ("not of type veth" if "type bridge" in attack[-1] else "the host end of interface eth0") in text
    place.assert_victim_is_well(before)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_repair_does_not_touch_another_containers_link(place: Place, attack: list[str]) -> None:
    before = place.link_of(place.victim)
    place.attack(*attack)
    answer = place.call("PYCNI_REPAIR")
    assert answer.code == 104
    assert "the veth pair of eth0 in /run/netns/attacker is gone" in answer.msg
    place.assert_victim_is_well(before)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("has_result", [True, False], ids=["result", "no-result"])
def test_del_takes_the_attacker_off_the_network_and_nobody_else(
    place: Place, attack: list[str], *, has_result: bool
) -> None:
    before = place.link_of(place.victim)
    place.attack(*attack)
    for _ in range(2):
        (place.call("DEL") if has_result else place.other.call("DEL", "attacker")).must()
        assert place.host_end not in place.host.links()
        assert "hidden" not in place.sandbox.links()
        assert "10.2.0.2" not in place.host.run(["ls", "/var/lib/cni/networks/net2"])
        place.assert_victim_is_well(before)


def test_del_removes_a_renamed_link(place: Place) -> None:
    place.attack("link set eth0 down", "link set eth0 name hidden", "link set hidden up")
    place.call("DEL").must()
    assert place.sandbox.links() == ["lo"]
    assert place.host_end not in place.host.links()


def test_del_removes_a_link_that_was_moved_elsewhere(place: Place) -> None:
    place.host.sandbox("deeper")
    place.attack("link set eth0 netns deeper", "link add eth0 type veth peer name decoy")
    place.call("DEL").must()
    assert place.host.run(["ip", "-n", "deeper", "-o", "link"]).count("\n") == 1
    assert place.host_end not in place.host.links()


def test_a_container_that_exchanges_its_own_links_keeps_each_on_its_bridge(place: Place) -> None:
    keys = {"prevResult": place.net.call("ADD", "attacker", ifname="eth1").must()}
    swap = [
        f"link set {each}"
        for each in ("eth0 down", "eth1 down", "eth0 name x", "eth1 name eth0", "x name eth1")
    ]
    place.attack(*swap)
    ends = {
        each: place.host.json(["ip", "-j", "link", "show", each])[0]["master"]
        for each in place.host.links()
        if each.startswith("veth")
    }
    assert place.call("PYCNI_REPAIR").code == 104
    assert place.net.call("PYCNI_REPAIR", "attacker", ifname="eth1", keys=keys).code == 104
    for name, master in ends.items():
        assert place.host.json(["ip", "-j", "link", "show", name])[0]["master"] == master


@pytest.mark.parametrize("has_result", [True, False], ids=["result", "no-result"])
def test_a_late_del_leaves_the_container_alone_that_has_the_path_by_now(
    host: Host, *, has_result: bool
) -> None:
    net = Network(host, **FULL)
    gone = net.add("gone")
    gone.sandbox.delete()
    sandbox = host.sandbox("gone")
    added = net.call("ADD", "living", netns=sandbox)
    links = sandbox.settled_links()
    keys = {"prevResult": gone.answer.json} if has_result else {}
    for _ in range(2):
        net.delete("gone", netns=sandbox, keys=keys)
        assert sandbox.settled_links() == links
        sandbox.run(["ping", "-c", "1", "-W", "5", GATEWAY])
        net.call("CHECK", "living", netns=sandbox, keys={"prevResult": added.json}).must()
    leases = host.run(["ls", "/var/lib/cni/networks/net1"]).split()
    assert added.addresses[0] in leases
    assert gone.address not in leases or gone.address == added.addresses[0]


def test_a_late_del_leaves_a_link_with_the_same_mac_address_alone(host: Host) -> None:
    net = Network(host, **FULL)
    keys = {"runtimeConfig": {"mac": "02:00:00:00:00:77"}}
    gone = net.add("gone", keys=keys)
    gone.sandbox.delete()
    sandbox = host.sandbox("gone")
    net.call("ADD", "living", netns=sandbox, keys=keys).must()
    net.delete("gone", netns=sandbox, keys=keys | {"prevResult": gone.answer.json})
    sandbox.run(["ping", "-c", "1", "-W", "5", GATEWAY])


def test_a_vlan_gateway_that_leads_to_another_namespace_is_not_repaired(host: Host) -> None:
    """The index of the other end counts in its own namespace only."""
    net = Network(host, **FULL)
    victim = net.add("victim")
    index = host.json(["ip", "-j", "link", "show", victim.host_end])[0]["ifindex"]
    host.sandbox("other")
    host.run(f"ip -n other link add x index {index} type veth peer name br1.5 netns {host.pid}".split())
    assert host.json(["ip", "-j", "link", "show", "br1.5"])[0]["link_index"] == index
    host.run(["ip", "link", "add", "br1", "type", "bridge"])

    def run() -> None:
        from cni.errors import CniError
        from cni.kernel import link
        from cni.kernel.rtnetlink import Netlink
        from cni_bridge import gateways
        from cni_bridge.plan import Gateway, VlanPlan

        gateway = Gateway("br1.5", "br1", 5, (), force=False, dad=False)
        with (
            Netlink() as nl,
            pytest.raises(CniError, match=r"VLAN gateway link br1\.5 has no peer on the bridge"),
        ):
            gateways.reattach(nl, gateway, link.get(nl, "br1"), VlanPlan(5, (), keeps_default=False))

    host.call(run)
    assert host.json(["ip", "-j", "link", "show", victim.host_end])[0]["master"] == "br0"
