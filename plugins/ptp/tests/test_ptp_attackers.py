"""A process with CAP_NET_ADMIN in a container's namespace cannot harm others by changing its links."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.network import GATEWAY, Network
from tests.support.link_attacks import ATTACKS, attack

if TYPE_CHECKING:
    from cni.testing import Answer, Host


class Place:
    """A victim and an attacker on one network, whose links have other indices."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.net = Network(host, "ptp", mtu=1400)
        del self.net.conf["bridge"]
        self.victim = host.sandbox("victim")
        # The index that its link gets is free in the attacker's namespace.
        self.victim.run(["ip", "link", "add", "padding", "type", "bridge"])
        for name in ("padding1", "padding2"):
            host.run(["ip", "link", "add", name, "type", "bridge"])
        self.victim_result = self.net.call("ADD", "victim").must()
        attacker = self.net.add("attacker")
        self.sandbox, self.result = attacker.sandbox, attacker.answer.json

    @property
    def host_end(self) -> str:
        """The attacker's host end."""
        return str(self.result["interfaces"][0]["name"])

    def victim_end(self) -> dict[str, Any]:
        """Return what the kernel reports of the victim's host end."""
        name = self.victim_result["interfaces"][0]["name"]
        [found] = self.host.json(["ip", "-j", "addr", "show", name])
        assert isinstance(found, dict)
        return found

    def attack(self, *commands: str) -> None:
        """Run commands of `ip` in the attacker's namespace, with the words of `link_attacks`."""
        [inner] = self.victim.json(["ip", "-j", "link", "show", "eth0"])
        words = {
            "VICTIM_MAC": inner["address"],
            "VICTIM_ADDRESS": "10.1.0.2",
            "VICTIM": str(self.victim_end()["ifindex"]),
            "INNER": str(inner["ifindex"]),
        }
        attack(self.sandbox, commands, words)

    def assert_victim_is_well(self, before: dict[str, Any]) -> None:
        """Assert that nothing of the victim has changed, and that it has its traffic."""
        assert self.victim_end() == before
        self.net.call("CHECK", "victim", keys={"prevResult": self.victim_result}).must()
        self.victim.run(["ping", "-c", "1", "-W", "5", GATEWAY])

    def call(self, verb: str, *, has_result: bool = True, **options: Any) -> Answer:
        """Call the plugin for the attacker."""
        keys = {"prevResult": self.result} if has_result else {}
        return self.net.call(verb, "attacker", keys=keys, **options)


@pytest.fixture
def place(host: Host) -> Place:
    return Place(host)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_check_and_repair_do_not_trust_a_link_of_the_container(place: Place, attack: list[str]) -> None:
    before = place.victim_end()
    place.call("CHECK").must()
    place.attack(*attack)
    answer = place.call("CHECK")
    assert answer.code == 104
    text = answer.text
    assert before["ifname"] not in text
    assert ("not of type veth" if "type bridge" in attack[-1] else "the host end of interface eth0") in text
    answer = place.call("PYCNI_REPAIR")
    assert answer.code == 104
    assert "the veth pair of eth0 in /run/netns/attacker is gone" in answer.msg
    place.assert_victim_is_well(before)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("has_result", [True, False], ids=["result", "no-result"])
def test_del_takes_the_attacker_off_the_network_and_nobody_else(
    place: Place, attack: list[str], *, has_result: bool
) -> None:
    before = place.victim_end()
    place.attack(*attack)
    for _ in range(2):
        place.call("DEL", has_result=has_result).must()
        assert place.host_end not in place.host.links()
        assert "hidden" not in place.sandbox.links()
        assert "10.1.0.3" not in place.host.run(["ls", "/var/lib/cni/networks/net1"])
        place.assert_victim_is_well(before)


def test_del_removes_a_link_that_was_renamed_or_moved(place: Place) -> None:
    place.attack("link set eth0 down", "link set eth0 name hidden", "link set hidden up")
    place.call("DEL").must()
    assert place.sandbox.links() == ["lo"]
    place.result = place.net.call("ADD", "attacker").must()
    place.host.sandbox("deeper")
    place.attack("link set eth0 netns deeper", "link add eth0 type veth peer name decoy")
    place.call("DEL").must()
    assert place.host.run(["ip", "-n", "deeper", "-o", "link"]).count("\n") == 1
    assert place.host_end not in place.host.links()


@pytest.mark.parametrize("has_result", [True, False], ids=["result", "no-result"])
def test_a_late_del_leaves_the_container_alone_that_has_the_path_by_now(
    host: Host, *, has_result: bool
) -> None:
    net = Network(host, "ptp")
    del net.conf["bridge"]
    gone = net.add("gone")
    gone.sandbox.delete(settled=True)
    sandbox = host.sandbox("gone")
    added = net.call("ADD", "living", netns=sandbox)
    links = sandbox.settled_links()
    keys = {"prevResult": gone.answer.json} if has_result else {}
    for _ in range(2):
        net.delete("gone", netns=sandbox, keys=keys)
        assert sandbox.settled_links() == links
        sandbox.run(["ping", "-c", "1", "-W", "5", GATEWAY])
        net.call("CHECK", "living", netns=sandbox, keys={"prevResult": added.json}).must()
