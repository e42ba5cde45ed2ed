"""Debian's Go tuning and ours on the same attachments: equal results, CHECK and DEL by the other one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import GO, OURS
from cni.testing.network import Network

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Answer, Host, Sandbox

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not (GO / "tuning").exists(), reason="containernetworking-plugins is not installed"),
]

MAC = "02:00:00:00:00:77"
CONFS: dict[str, dict[str, Any]] = {
    "attributes": {"mac": MAC, "mtu": 1300, "promisc": True, "allmulti": True},
    "sysctl": {"sysctl": {"net.core.somaxconn": "500", "net/ipv4/conf/eth0/arp_filter": "1"}},
    "args": {"args": {"cni": {"mac": MAC, "mtu": 1300, "promisc": True}}, "mac": "02:00:00:00:00:01"},
    "nothing": {},
}
CNI_ARGS = "IgnoreUnknown=1;MAC=02:00:00:00:00:05"


class Place:
    """A container behind the bridge."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.net = Network(host, cniVersion="1.0.0")
        # The Go plugin makes this folder unusable for others than root if it creates it itself.
        host.run(["mkdir", "-p", "/run/cni/tuning"])
        attached = self.net.add("c1")
        self.sandbox: Sandbox = attached.sandbox
        self.result = attached.answer.json

    def call(self, verb: str, conf: dict[str, Any], bindir: Path | None, **options: Any) -> Answer:
        keys = {"cniVersion": "1.0.0", "name": "net1", "type": "tuning", "prevResult": self.result}
        given: dict[str, Any] = {"netns": self.sandbox, "bindir": bindir} | options
        return self.host.plugin("tuning", verb, keys | conf, **given)

    def inside(self) -> list[Any]:
        [shown] = self.sandbox.json(["ip", "-j", "link", "show", "eth0"])
        keys = ("net/core/somaxconn", "net/ipv4/conf/eth0/arp_filter")
        values = self.sandbox.run(["cat", *(f"/proc/sys/{key}" for key in keys)])
        flags = sorted({"PROMISC", "ALLMULTI"} & set(shown["flags"]))
        return [shown["address"], shown["mtu"], flags, values.split()]

    def files(self) -> list[str]:
        folders = ["/run/cni/tuning", "/run/pycni/attachments"]
        return self.host.run(["find", *folders, "-type", "f"], check=False).split()


@pytest.fixture
def place(host: Host) -> Place:
    return Place(host)


@pytest.mark.parametrize("conf", CONFS.values(), ids=CONFS)
@pytest.mark.parametrize("args", ["", CNI_ARGS], ids=["no-args", "args"])
def test_the_result_and_the_container_are_those_of_go(place: Place, conf: dict[str, Any], args: str) -> None:
    before = place.inside()
    found = []
    for bindir in (GO, OURS):
        result = place.call("ADD", conf, bindir, args=args).must()
        found.append(({key: value for key, value in result.items() if value}, place.inside()))
        place.call("DEL", conf | {"prevResult": result}, OURS).must()
        # The Go plugin restores no sysctls.
        assert place.inside()[:3] == before[:3]
    assert found[0] == found[1]
    assert place.files() == []


@pytest.mark.parametrize("conf", CONFS.values(), ids=CONFS)
@pytest.mark.parametrize("go_adds", [True, False], ids=["go-adds", "we-add"])
def test_one_checks_and_removes_what_the_other_made(
    place: Place, conf: dict[str, Any], *, go_adds: bool
) -> None:
    maker, other = (GO, OURS) if go_adds else (OURS, GO)
    before = place.inside()
    place.result = place.call("ADD", conf, maker).must()
    for bindir in (other, maker):
        place.call("CHECK", conf, bindir).must()
    for _ in range(2):
        place.call("DEL", conf, other).must()
    if go_adds:
        assert place.inside()[:3] == before[:3]
        assert place.files() == []
        return
    # The Go plugin does not know our record: the container's end restores nothing, and GC drops the record.
    keys = {"cni.dev/valid-attachments": [], "cniVersion": "1.1.0"}
    place.call("GC", conf | keys, OURS, container_id="", ifname="").must()
    assert place.inside() == before
    assert place.files() == []


def test_a_go_backup_goes_also_when_the_namespace_is_gone(place: Place) -> None:
    for data_dir in ("", "/run/elsewhere"):
        conf = CONFS["attributes"] | {"dataDir": data_dir}
        place.host.run(["mkdir", "-p", "/run/elsewhere"])
        place.call("ADD", conf, GO).must()
        folder = data_dir or "/run/cni/tuning"
        assert place.host.run(["ls", folder]).split() == ["c1_eth0.json"]
        place.call("DEL", conf, OURS, netns="/run/netns/none").must()
        assert place.host.run(["ls", folder]) == ""
    place.call("ADD", conf, GO).must()
    place.sandbox.delete()
    place.call("DEL", conf, OURS).must()
    assert place.host.run(["ls", "/run/elsewhere"]) == ""


def test_a_go_backup_of_another_container_is_not_restored_into_the_one_that_has_the_path(
    place: Place,
) -> None:
    conf = CONFS["attributes"]
    result = place.call("ADD", conf, GO).must()
    place.sandbox.delete()
    place.sandbox = place.host.sandbox("c1")
    place.net.call("ADD", "living", netns=place.sandbox).must()
    before = place.inside()
    place.call("DEL", conf | {"prevResult": result}, OURS).must()
    assert place.inside() == before
    assert place.files() == []


def test_our_check_reports_what_go_reports(place: Place) -> None:
    conf = CONFS["attributes"] | CONFS["sysctl"]
    place.result = place.call("ADD", conf, GO).must()
    changes = {
        "ip link set eth0 address 02:00:00:00:00:09": "address 02:00:00:00:00:77",
        "ip link set eth0 mtu 1200": "mtu 1300",
        "ip link set eth0 promisc off": "promisc on",
        "ip link set eth0 allmulticast off": "allmulticast on",
    }
    for command, undo in changes.items():
        place.sandbox.run(command.split())
        theirs, ours = (place.call("CHECK", conf, bindir).msg for bindir in (GO, OURS))
        # The Go plugin prints the address of one value.
        assert ours == theirs or "all-multicast mode" in ours
        assert ours.startswith("Error: Tuning ")
        place.sandbox.run(["ip", "link", "set", "eth0", *undo.split()])
        place.call("CHECK", conf, OURS).must()
