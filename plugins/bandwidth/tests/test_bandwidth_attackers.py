"""A container with CAP_NET_ADMIN does not get limits, or an ifb, onto another container's host end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.network import Network

if TYPE_CHECKING:
    from cni.testing import Answer, Host, Sandbox

CONF = {"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 8_000_000, "egressBurst": 800_000}
PAIR = "link add eth0 index INNER type veth peer name decoy index VICTIM"
ATTACKS = {
    "another pair": ["link del eth0", PAIR],
    "a second pair": ["link set eth0 down", "link set eth0 name hidden", "link set hidden up", PAIR],
}


class Place:
    """A victim and an attacker on one network."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.net = Network(host, isGateway=True)
        # The indices of links differ, so that the attacker is free to choose.
        for name in ("padding1", "padding2"):
            host.run(["ip", "link", "add", name, "type", "bridge"])
        self.victim = host.sandbox("victim")
        self.victim.run(["ip", "link", "add", "padding", "type", "bridge"])
        self.victim_result = self.net.call("ADD", "victim").must()
        attacker = self.net.add("attacker")
        self.sandbox: Sandbox = attacker.sandbox
        self.result: dict[str, Any] = attacker.answer.json

    @property
    def victim_end(self) -> str:
        return str(self.victim_result["interfaces"][1]["name"])

    def call(self, verb: str, **keys: Any) -> Answer:
        conf = {"cniVersion": "1.1.0", "name": "net1", "type": "bandwidth", "prevResult": self.result}
        conf |= CONF | keys
        return self.host.plugin("bandwidth", verb, conf, netns=self.sandbox, container_id="attacker")

    def attack(self, commands: list[str]) -> None:
        [inner] = self.victim.json(["ip", "-j", "link", "show", "eth0"])
        [end] = self.host.json(["ip", "-j", "link", "show", self.victim_end])
        words = {"VICTIM": str(end["ifindex"]), "INNER": str(inner["ifindex"])}
        for each in commands:
            self.sandbox.run(["ip", *(words.get(word, word) for word in each.split())])

    def disciplines(self) -> str:
        return self.host.run(["tc", "qdisc", "show", "dev", self.victim_end])


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("is_late", [False, True], ids=["before-add", "after-add"])
def test_the_host_end_of_another_container_is_not_touched(
    host: Host, attack: list[str], *, is_late: bool
) -> None:
    """The attacker's result names the victim's host end, too: a plugin before may have believed it."""
    place = Place(host)
    before = place.disciplines()
    if is_late:
        place.result = place.call("ADD").must()
    place.attack(attack)
    place.result["interfaces"].append(place.victim_result["interfaces"][1])
    if not is_late:
        assert place.call("ADD").msg == "no veth peer of container interface found in host ns"
    answer = place.call("CHECK")
    assert (answer.code, answer.msg) == (104, "no veth peer of container interface found in host ns")
    assert place.call("PYCNI_REPAIR").must()["repaired"] == []
    assert place.disciplines() == before
    place.call("DEL").must()
    assert place.disciplines() == before
    assert [each for each in host.links() if each.startswith("bwp")] == []


def test_an_ifb_of_another_attachment_or_another_kind_of_link_stays(host: Host) -> None:
    """The name that the Go plugin derives is taken, by chance or by intent."""
    place = Place(host)
    place.call("ADD").must()
    [ifb] = [each for each in host.links() if each.startswith("bwp")]
    place.call("DEL").must()
    for kind in (["type", "ifb"], ["type", "bridge"]):
        host.run(["ip", "link", "add", ifb, *kind])
        host.run(["ip", "link", "set", ifb, "alias", "bandwidth:pycni:net2:other:eth0"])
        place.call("ADD").must()
        place.call("DEL").must()
        assert [each for each in host.links() if each.startswith("bwp")] == [ifb]
        host.run(["ip", "link", "del", ifb])
