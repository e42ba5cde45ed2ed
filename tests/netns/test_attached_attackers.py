"""`pycni repair` and `pycni show` beside a container that makes its links look like another container's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.netns.attached_world import World
from tests.support import scene

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")

VICTIM, ATTACKER = "/run/netns/victim", "/run/netns/attacker"
# INNER and OUTER are the indices of the victim's own end and of its host end.
DECOY = "ip link add eth0 index INNER type veth peer name decoy index OUTER"
ATTACKS = {
    "deleted": ["ip link del eth0", DECOY],
    "renamed": ["ip link set eth0 down", "ip link set eth0 name hidden", DECOY],
}


class Attacked:
    """A victim and an attacker on networks of their own, attached by `pycni add`."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.host = host
        self.world = World(host, folder)
        ipam = {"type": scene.IPAM, "subnet": "10.8.0.0/24"}
        self.world.configure("other", self.world.bridge | {"bridge": "other0", "ipam": ipam})
        self.world.sandboxes["victim"] = host.sandbox("victim")
        # So that the indices differ, and the victim's are free in the attacker's namespace.
        for side in (host, self.world.sandboxes["victim"]):
            side.run(["ip", "link", "add", "padding", "type", "bridge"])
        self.host_end = self.world.attach("victim")["interfaces"][1]["name"]
        self.attacker_end = self.world.attach("attacker", network="other")["interfaces"][1]["name"]

    def link(self) -> Any:
        """Return what the kernel says of the victim's host end."""
        [found] = self.host.json(["ip", "-j", "link", "show", self.host_end])
        return found

    def attack(self, commands: list[str]) -> None:
        """Run commands in the attacker's namespace."""
        [inner] = self.world.sandboxes["victim"].json(["ip", "-j", "link", "show", "eth0"])
        for each in commands:
            command = each.replace("INNER", str(inner["ifindex"])).replace(
                "OUTER", str(self.link()["ifindex"])
            )
            self.world.sandboxes["attacker"].run(command.split())
        shown = self.world.sandboxes["attacker"].json(["ip", "-j", "link", "show", "eth0"])
        assert shown[0]["ifindex"] == inner["ifindex"]

    def asked(self, verb: str, *options: str) -> dict[str, Any]:
        """Run `repair` or `show` and return each attachment by its namespace."""
        told = json.loads(self.world.run(verb, "--json", *options).stdout)
        listed = [told] if verb == "repair" else told["networks"]
        return {each["netns"]: each for group in listed for each in group["attachments"]}


@pytest.fixture
def attacked(host: Host, tmp_path: Path) -> Attacked:
    return Attacked(host, tmp_path)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_repair_moves_no_link_of_another_container(attacked: Attacked, attack: list[str]) -> None:
    before = attacked.link()
    attacked.attack(attack)
    for options in (["--dry-run"], []):
        told = attacked.asked("repair", *options)
        assert told[VICTIM]["state"] == "well"
        assert told[VICTIM]["repaired"] == told[ATTACKER]["repaired"] == []
        assert told[ATTACKER]["state"] == ("failed" if not options else "differs")
        assert attacked.host_end not in json.dumps(told[ATTACKER])
        assert attacked.link() == before
        assert before["master"] == "web0"
    attacked.world.sandboxes["victim"].run(["ping", "-c", "1", "-W", "5", "10.9.0.1"])


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_show_tells_of_no_link_of_another_container(attacked: Attacked, attack: list[str]) -> None:
    assert attacked.asked("show")[ATTACKER]["problems"] == []
    attacked.attack(attack)
    told = attacked.asked("show")
    assert told[VICTIM]["problems"] == []
    assert told[VICTIM]["hostLink"]["name"] == attacked.host_end
    assert told[ATTACKER]["hostLink"] is None
    how = "is missing" if "del" in attack[0] else "is not the other end of eth0"
    assert f"host end {attacked.attacker_end} {how}" in told[ATTACKER]["problems"]
