"""A container with CAP_NET_ADMIN, and an author of networks, change nothing outside of the container."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.network import Network

if TYPE_CHECKING:
    from cni.testing import Answer, Host, Sandbox

CONF = {"mtu": 1300, "mac": "02:00:00:00:00:77"}
PAIR = "link add eth0 index INNER type veth peer name decoy index VICTIM"
ATTACKS = {
    "another pair": ["link del eth0", PAIR],
    "a second pair": ["link set eth0 down", "link set eth0 name hidden", "link set hidden up", PAIR],
    "a bridge": ["link del eth0", "link add eth0 index INNER type bridge"],
}


class Place:
    """A victim and an attacker on one network."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.net = Network(host, isGateway=True)
        self.sandboxes: dict[str, Sandbox] = {}
        self.results: dict[str, Any] = {}
        # The indices of links differ, so that the attacker is free to choose.
        for name in ("padding1", "padding2"):
            host.run(["ip", "link", "add", name, "type", "bridge"])
        self.sandboxes["victim"] = host.sandbox("victim")
        self.sandboxes["victim"].run(["ip", "link", "add", "padding", "type", "bridge"])
        self.results["victim"] = self.net.call("ADD", "victim").must()
        attacker = self.net.add("attacker")
        self.sandboxes["attacker"] = attacker.sandbox
        self.results["attacker"] = attacker.answer.json

    def call(self, verb: str, name: str, conf: dict[str, Any], **options: Any) -> Answer:
        keys = {"cniVersion": "1.1.0", "name": "net1", "type": "tuning", "prevResult": self.results[name]}
        given: dict[str, Any] = {"netns": self.sandboxes[name], "container_id": name} | options
        return self.host.plugin("tuning", verb, keys | conf, **given)

    def victim_end(self) -> dict[str, Any]:
        name = self.results["victim"]["interfaces"][1]["name"]
        [found] = self.host.json(["ip", "-j", "link", "show", name])
        assert isinstance(found, dict)
        return found

    def attack(self, commands: list[str]) -> None:
        [inner] = self.sandboxes["victim"].json(["ip", "-j", "link", "show", "eth0"])
        words = {"VICTIM": str(self.victim_end()["ifindex"]), "INNER": str(inner["ifindex"])}
        for each in commands:
            command = [words.get(word, word) for word in each.split()]
            self.sandboxes["attacker"].run(["ip", *command])


@pytest.fixture
def place(host: Host) -> Place:
    return Place(host)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("is_late", [False, True], ids=["before-add", "after-add"])
def test_the_host_end_of_another_container_keeps_its_mtu(
    place: Place, attack: list[str], *, is_late: bool
) -> None:
    """The result of the attacker names the victim's host end, too: a plugin before may have believed it."""
    before = place.victim_end()
    interfaces = place.results["attacker"]["interfaces"]
    if is_late:
        place.results["attacker"] = place.call("ADD", "attacker", CONF).must()
    place.attack(attack)
    named = json.loads(json.dumps(interfaces))
    named[1] = place.results["victim"]["interfaces"][1]
    place.results["attacker"] = {"cniVersion": "1.1.0", "interfaces": named}
    if not is_late:
        place.call("ADD", "attacker", CONF).must()
    place.call("CHECK", "attacker", CONF)
    place.call("PYCNI_REPAIR", "attacker", CONF)
    place.call("DEL", "attacker", CONF).must()
    assert place.victim_end() == before


def test_a_late_del_leaves_the_container_alone_that_has_the_path_by_now(place: Place) -> None:
    place.call("ADD", "attacker", CONF).must()
    place.sandboxes["attacker"].delete()
    place.sandboxes["attacker"] = sandbox = place.host.sandbox("attacker")
    place.net.call("ADD", "living", netns=sandbox).must()
    sandbox.run(["sh", "-c", "echo 500 > /proc/sys/net/core/somaxconn"])
    before = sandbox.run(["ip", "link", "show", "eth0"])
    place.call("DEL", "attacker", CONF).must()
    assert sandbox.run(["ip", "link", "show", "eth0"]) == before
    assert sandbox.run(["cat", "/proc/sys/net/core/somaxconn"]).strip() == "500"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b'{"mac": 5}',
        b'{"mac": "zz", "mtu": 1400}',
        b'{"mtu": -1}',
        b'{"promisc": "x"}',
        b'{"sysctl": {"../../../run/target": {"before": "new", "written": "old"}}}',
        b'{"sysctl": {"kernel/hostname": {"before": "new", "written": ""}}}',
    ],
)
def test_a_planted_backup_changes_nothing_and_keeps_nobody_from_a_del(place: Place, content: bytes) -> None:
    place.host.run(["sh", "-c", "mkdir -p /run/cni/tuning; echo old > /run/target"])
    place.host.call(plant, "/run/cni/tuning/attacker_eth0.json", content)
    before = place.sandboxes["attacker"].run(["ip", "link"])
    place.call("DEL", "attacker", {}).must()
    assert place.sandboxes["attacker"].run(["ip", "link"]) == before
    assert place.host.run(["cat", "/run/target"]) == "old\n"


def plant(path: str, content: bytes) -> None:
    Path(path).write_bytes(content)


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "others"])
def test_a_backup_that_is_no_file_of_roots_is_ignored(place: Place, kind: str) -> None:
    path = "/run/cni/tuning/attacker_eth0.json"
    make = {
        "link": f"echo secret > /run/secret; ln -s /run/secret {path}",
        "fifo": f"mkfifo {path}",
        "folder": f"mkdir {path}",
        "others": f"echo '{{\"mtu\": 1234}}' > {path}; chmod 777 /run/cni/tuning",
    }
    place.host.run(["sh", "-c", f"mkdir -p /run/cni/tuning; {make[kind]}"])
    answer = place.call("DEL", "attacker", {})
    answer.must()
    assert f"tuning: ignoring {path}" in answer.stderr
    assert "mtu 1500" in place.sandboxes["attacker"].run(["ip", "link", "show", "eth0"])
    if kind == "link":
        assert place.host.run(["cat", "/run/secret"]) == "secret\n"


def test_a_record_that_was_damaged_keeps_nobody_from_a_del(place: Place) -> None:
    for content in (b"", b"[]", b"{}"):
        place.call("ADD", "attacker", CONF).must()
        [path] = place.host.run(["find", "/run/pycni/attachments", "-type", "f"]).split()
        place.host.call(plant, path, content)
        place.call("DEL", "attacker", CONF).must()
        assert place.host.run(["find", "/run/pycni/attachments", "-type", "f"]) == ""


NAMES = ["all", "default", "lo", "x%d", "a.b"]


@pytest.mark.parametrize("ifname", NAMES)
def test_whatever_the_interface_is_called_only_the_container_changes(place: Place, ifname: str) -> None:
    before = place.host.run(["sysctl", "-a", "-r", "^net"])
    conf = {"sysctl": {"net.ipv4.conf.IFNAME.arp_ignore": "3"}}
    place.call("ADD", "attacker", conf, ifname=ifname)
    place.call("DEL", "attacker", conf, ifname=ifname).must()
    assert place.host.run(["sysctl", "-a", "-r", "^net"]) == before
