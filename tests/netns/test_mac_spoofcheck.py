"""Frames with a foreign source address do not get past a container's host end."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni.errors import CniError
from cni.firewall import spoofcheck
from cni.firewall.intents import Owner
from cni.kernel.netns import open_netns
from cni.testing import GO
from cni.undo import Undo
from tests.support import scene

if TYPE_CHECKING:
    from cni.testing import Host, Sandbox

pytestmark = pytest.mark.modes("warm")

OWNER = Owner("net1", "cid1", "eth0")
MAC = "0a:00:00:00:00:02"
_EXPERIMENTAL = 0x88B5
LONG = Owner("net1", "default-" + "a" * 64, "eth0")
GO_RULESET = (Path(__file__).parent.parent / "data" / "go_macspoofchk.nft").read_text(encoding="utf-8")


GO_CONF = {
    "cniVersion": "1.0.0",
    "name": "net1",
    "type": scene.INTERFACE,
    "bridge": "br0",
    "macspoofchk": True,
    "ipam": {"type": scene.IPAM, "subnet": "10.22.0.0/16"},
}


def _ensure(host: Host, owner: Owner = OWNER, ifname: str = "vc1", mac: str = MAC) -> None:
    host.call(_ensure_here, owner, ifname, mac)


def _ensure_here(owner: Owner, ifname: str, mac: str) -> None:
    with Undo() as undo:
        spoofcheck.ensure(owner, ifname, mac, undo)


def _container(host: Host, number: int, mac: str) -> Sandbox:
    name = f"c{number}"
    sandbox = host.sandbox(name)
    host.run(["ip", "link", "add", f"v{name}", "type", "veth", "peer", "name", "eth0", "netns", name])
    host.run(["ip", "link", "set", f"v{name}", "master", "br0", "up"])
    sandbox.run(["ip", "link", "set", "eth0", "address", mac, "up"])
    sandbox.run(["ip", "addr", "add", f"10.22.0.{number}/16", "dev", "eth0"])
    return sandbox


def test_spoofed_frames_are_dropped_and_others_pass(host: Host) -> None:
    host.run(["ip", "link", "add", "br0", "up", "type", "bridge"])
    client, server = (_container(host, number, f"0a:00:00:00:00:{number:02}") for number in (1, 2))
    _ensure(host, mac="0a:00:00:00:00:01")
    with server.serve(80):
        assert client.dial("10.22.0.2", 80).address == "10.22.0.1"
        # A frame of another source, sent raw, must not be seen; the same with the right source must.
        assert not _arrives(host, client, server, source="0a:00:00:00:00:77", within_s=0.5)
        assert _arrives(host, client, server, source="0a:00:00:00:00:01", within_s=10)
        client.run(["ip", "link", "set", "eth0", "address", "0a:00:00:00:00:78"])
        assert not client.reaches("10.22.0.2", 80)
        host.call(spoofcheck.remove, OWNER)
        assert client.reaches("10.22.0.2", 80, timeout_s=10)


def _arrives(host: Host, client: Sandbox, server: Sandbox, source: str, within_s: float) -> bool:
    """Send a frame of an experimental protocol from one to the other and tell whether it comes out."""

    def send_and_wait() -> bool:
        with _raw(client) as sender, _raw(server) as receiver:
            there, here = (bytes.fromhex(mac.replace(":", "")) for mac in ("0a:00:00:00:00:02", source))
            sender.send(there + here + _EXPERIMENTAL.to_bytes(2, "big") + bytes(50))
            receiver.settimeout(within_s)
            try:
                return bool(receiver.recv(1500))
            except TimeoutError:
                return False

    return host.call(send_and_wait)


def _raw(sandbox: Sandbox) -> socket.socket:
    with open_netns(sandbox.path) as netns, netns.entered():
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        raw.bind(("eth0", _EXPERIMENTAL))
    return raw


def test_artefacts_are_those_of_the_go_plugin(host: Host) -> None:
    _ensure(host)
    ours = host.run(["nft", "list", "ruleset"])
    host.run(["nft", "flush", "ruleset"])
    host.run(["nft", "-f", "-"], GO_RULESET)
    assert ours == host.run(["nft", "list", "ruleset"])


@pytest.mark.parametrize("owner", [OWNER, LONG])
def test_removal_needs_the_owner_only_and_may_be_repeated(host: Host, owner: Owner) -> None:
    _ensure(host, Owner("net1", "other", "eth0"), "vc2")
    before = host.snapshot(exact=True)
    _ensure(host, owner)
    for _ in range(2):
        host.call(spoofcheck.remove, owner)
        assert before.differences(host.snapshot(exact=True)) == []


def test_objects_of_the_go_plugin_are_found_and_removed(host: Host) -> None:
    host.run(["nft", "-f", "-"], GO_RULESET)
    assert host.call(spoofcheck.differences, OWNER, "vc1", MAC) == []
    host.call(spoofcheck.remove, OWNER)
    assert "cid1" not in host.run(["nft", "list", "ruleset"])


def test_removal_succeeds_where_there_is_nothing(host: Host) -> None:
    host.call(spoofcheck.remove, OWNER)
    assert host.run(["nft", "list", "ruleset"]) == ""


def test_a_second_add_replaces(host: Host) -> None:
    _ensure(host)
    _ensure(host, ifname="vc9", mac="0a:00:00:00:00:09")
    assert host.call(spoofcheck.differences, OWNER, "vc9", "0a:00:00:00:00:09") == []
    rules = host.run(["nft", "list", "ruleset"])
    assert "vc1" not in rules
    assert MAC not in rules


@pytest.mark.parametrize(
    ("ifname", "mac", "told"),
    [
        ("vc", MAC, ["the MAC spoof check does not cover vc"]),
        ("vc1", "0a:00:00:00:00:03", ["the MAC spoof check of vc1 does not allow just 0a:00:00:00:00:03"]),
    ],
)
def test_check_names_what_is_wrong(host: Host, ifname: str, mac: str, told: list[str]) -> None:
    _ensure(host)
    assert host.call(spoofcheck.differences, OWNER, ifname, mac) == told


def test_check_tells_what_is_missing(host: Host) -> None:
    assert len(host.call(spoofcheck.differences, OWNER, "vc1", MAC)) == 2


@pytest.mark.parametrize(
    "before", ["", "table bridge nat { chain mine { }; }", GO_RULESET.replace("cid1", "cid2")]
)
def test_a_failing_add_leaves_the_ruleset_as_it_was(host: Host, before: str) -> None:
    def fail_late() -> None:
        with Undo() as undo:
            spoofcheck.ensure(OWNER, "vc1", MAC, undo)
            raise TimeoutError

    host.run(["nft", "-f", "-"], before)
    snapshot = host.snapshot(exact=True)
    with pytest.raises(TimeoutError):
        host.call(fail_late)
    assert snapshot.differences(host.snapshot(exact=True)) == []


def test_an_odd_mac_is_refused_before_anything_is_made() -> None:
    with Undo() as undo, pytest.raises(CniError, match='invalid MAC address "0a:00; flush ruleset"'):
        spoofcheck.ensure(OWNER, "vc1", "0a:00; flush ruleset", undo)


@pytest.mark.interop
@scene.needs_go
def test_an_add_of_the_go_plugin_is_checked_and_removed(host: Host) -> None:
    sandbox = host.sandbox("c1")
    added = host.plugin(scene.INTERFACE, "ADD", GO_CONF, netns=sandbox, container_id="cid1", bindir=GO).must()
    host_end, container_end = added["interfaces"][1:3]
    assert host.call(spoofcheck.differences, OWNER, host_end["name"], container_end["mac"]) == []
    host.call(spoofcheck.remove, OWNER)
    assert "cid1" not in host.run(["nft", "list", "ruleset"])


@pytest.mark.interop
@scene.needs_go
def test_the_go_plugin_removes_what_was_added_here(host: Host) -> None:
    sandbox = host.sandbox("c1")
    host.plugin(scene.INTERFACE, "ADD", GO_CONF, netns=sandbox, container_id="cid1", bindir=GO).must()
    host.run(["nft", "flush", "ruleset"])
    _ensure(host)
    assert (
        host.plugin(scene.INTERFACE, "DEL", GO_CONF, netns=sandbox, container_id="cid1", bindir=GO).status
        == 0
    )
    assert "cid1" not in host.run(["nft", "list", "ruleset"])
