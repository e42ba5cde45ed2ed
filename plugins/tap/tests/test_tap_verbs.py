"""All verbs of the tap plugin on real hosts: what it makes, compares, restores and removes."""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import socket
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni.errors import CniError
from cni.kernel import link, netns, tap
from cni.kernel.rtnetlink import Netlink
from cni.kernel.tap import Settings
from cni.testing.network import Attached, Network
from cni.testing.place import BARE_ENV

if TYPE_CHECKING:
    from cni.testing import Host

pytestmark = pytest.mark.needs_kernel("tun")
IPAM = {
    "type": "host-local",
    "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd01::/64"}]],
    "routes": [{"dst": "0.0.0.0/0"}],
}
MAC = "02:00:00:00:00:01"
_FRAME_WITHIN_S = 30


def network(host: Host, **keys: Any) -> Network:
    # The usual network has the name of a bridge.
    return Network(host, "tap", **{"bridge": "", "ipam": IPAM, **keys})


def shown_link(one: Attached, name: str = "eth0") -> dict[str, Any]:
    shown: dict[str, Any] = one.sandbox.json(["ip", "-d", "-j", "-N", "link", "show", name])[0]
    return shown


def test_the_result_has_the_device_with_its_addresses(host: Host) -> None:
    net = network(host, mtu=1400)
    one = net.add("c1")
    result, shown = one.answer.json, shown_link(one)
    assert result["interfaces"] == [
        {"name": "eth0", "mac": shown["address"], "sandbox": one.sandbox.path, "mtu": 1400}
    ]
    assert [(each["address"], each["interface"]) for each in result["ips"]] == [
        ("10.1.0.2/24", 0),
        ("fd01::2/64", 0),
    ]
    kind = shown["linkinfo"]
    assert (kind["info_kind"], kind["info_data"]["type"], shown["mtu"]) == ("tun", "tap", 1400)
    assert kind["info_data"]["persist"]
    assert not kind["info_data"]["multi_queue"]
    assert "owner" not in kind["info_data"]
    assert ("UP" in shown["flags"], shown["group"]) == (True, "0")
    net.check(one).must()


def test_multi_queue_owner_and_group_are_set(host: Host) -> None:
    net = network(host, ipam={}, multiQueue=True, owner=4000000000, group=4000000001)
    one = net.add("c1")
    data = shown_link(one)["linkinfo"]["info_data"]
    assert (data["multi_queue"], data["user"], data["group"]) == (True, 4000000000, 4000000001)
    assert one.answer.json.get("ips", []) == []
    net.check(one).must()


def test_the_runtimes_mac_comes_before_that_of_the_arguments_and_the_configuration(host: Host) -> None:
    net = network(host, ipam={}, mac=MAC, owner=1, group=1)
    args = "IgnoreUnknown=1;MAC=02:00:00:00:00:02"
    assert shown_link(net.add("c1"))["address"] == MAC
    assert shown_link(net.add("c2", args=args))["address"] == "02:00:00:00:00:02"
    net.conf["runtimeConfig"] = {"mac": "02:00:00:00:00:03"}
    assert shown_link(net.add("c3", args=args))["address"] == "02:00:00:00:00:03"


def read_frame() -> bytes:
    """Open the device as a virtual machine does, and return a frame that the container sends to 10.1.0.9."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        # Ethernet frames with virtio's head only.
        fcntl.ioctl(device, 0x400454CA, struct.pack("=16sH22x", b"eth0", 0x2 | 0x1000 | 0x4000))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", ("10.1.0.9", 9))
        while select.select([device], [], [], _FRAME_WITHIN_S)[0]:
            frame = os.read(device, 65536)
            if bytes([10, 1, 0, 9]) in frame:
                return frame
        raise TimeoutError
    finally:
        os.close(device)


def test_a_program_gets_the_containers_frames(host: Host) -> None:
    one = network(host, mac=MAC).add("c1")
    frame = one.sandbox.call(read_frame)
    # It asks for the MAC address of the neighbour.
    assert bytes.fromhex(MAC.replace(":", "")) in frame


def test_the_device_becomes_a_port_of_a_bridge_in_the_container(host: Host) -> None:
    net = network(host, ipam={}, bridge="br5")
    sandbox = host.sandbox("c1")
    sandbox.run(["ip", "link", "add", "br5", "type", "bridge"])
    one = Attached("c1", sandbox, net.call("ADD", "c1"))
    one.answer.must()
    assert shown_link(one)["master"] == "br5"
    net.check(one).must()
    sandbox.run(["ip", "link", "set", "eth0", "nomaster"])
    assert "Interface eth0 is no port of bridge br5 of the container" in net.check(one).text
    net.repair(one).must()
    net.check(one).must()
    net.delete("c1")
    assert sandbox.links() == ["lo", "br5"]


FAILURES: dict[str, tuple[dict[str, Any], int, str]] = {
    "a bridge that is not there": (
        {"bridge": "br9"},
        100,
        'failed to lookup bridge "br9": Link not found; set "bridge" to a bridge in the container',
    ),
    "a bridge that is only on the host": ({"bridge": "br0"}, 100, 'failed to lookup bridge "br0"'),
    "a bridge that is another link": (
        {"bridge": "lo"},
        7,
        '"lo" in the container already exists but is not a',
    ),
    "SELinux where there is none": (
        {"selinuxContext": "system_u:system_r:container_t:s0"},
        7,
        'failed to create tap: "selinuxContext" is "system_u:system_r:container_t:s0", but this host has no',
    ),
    "a MAC address of a group": ({"mac": "01:00:5e:00:00:01"}, 7, "failed to create tap: cannot assign"),
    "an MTU that is too small": ({"mtu": 20}, 100, 'could not set the MTU of "veth'),
    "an IPAM that is not there": ({"ipam": {"type": "nowhere"}}, 7, 'failed to find plugin "nowhere"'),
}


@pytest.mark.parametrize(("keys", "code", "message"), FAILURES.values(), ids=FAILURES)
def test_an_add_that_fails_leaves_nothing(host: Host, keys: dict[str, Any], code: int, message: str) -> None:
    net = network(host, **keys)
    host.sandbox("c1")
    host.run(["ip", "link", "add", "br0", "type", "bridge"])
    before = host.snapshot()
    answer = net.call("ADD", "c1")
    assert answer.code == code
    assert message in answer.text
    assert before.differences(host.snapshot()) == []


def test_a_host_without_the_device_file_says_what_is_missing(host: Host) -> None:
    net = network(host, ipam={})
    host.run(["mount", "-t", "tmpfs", "tmpfs", "/dev/net"])
    host.sandbox("c1")
    before = host.snapshot()
    answer = net.call("ADD", "c1")
    assert answer.code == 100
    assert "could not open /dev/net/tun: no such file or directory; load the kernel's module" in answer.text
    assert before.differences(host.snapshot()) == []
    assert net.status().code == 50
    assert "could not open /dev/net/tun" in net.status().text


def test_a_second_add_does_not_harm_the_first(host: Host) -> None:
    net = network(host, ipam={})
    one = net.add("c1")
    answer = net.call("ADD", "c1")
    assert (answer.code, answer.msg) == (105, f'failed to create tap: "eth0" exists in {one.sandbox.path}')
    net.check(one).must()


def test_a_link_of_the_temporary_name_is_not_taken_over(host: Host) -> None:
    """The container has made it before ADD comes."""
    net = network(host, ipam={})
    first = net.add("c1")
    net.delete("c1")
    first.sandbox.run(["ip", "link", "add", "x", "type", "veth", "peer", "name", "y"])
    answer = net.call("ADD", "c1", ifname="y")
    assert answer.code == 105
    name = host.call(temporary_name)
    first.sandbox.run(["ip", "tuntap", "add", "mode", "tap", "name", name])
    answer = net.call("ADD", "c1")
    assert (answer.code, "file exists" in answer.msg) == (100, True)
    assert name in first.sandbox.links()


def temporary_name() -> str:
    from cni.firewall.intents import Owner
    from cni.interface.plan import host_name

    return host_name(Owner("net1", "c1", "eth0"))


def test_all_goes_with_del_which_may_be_called_again(host: Host) -> None:
    net = network(host)
    net.add("first")
    net.delete("first")
    host.sandbox("c1")
    host.sandbox("c2")
    before = host.snapshot()
    for name in ("c1", "c2"):
        net.call("ADD", name).must()
    for name in ("c1", "c2"):
        for _ in range(2):
            net.delete(name)
    assert before.differences(host.snapshot()) == []


def test_del_needs_no_namespace(host: Host) -> None:
    net = network(host)
    one = net.add("c1")
    one.sandbox.delete()
    for path in ("", one.sandbox.path):
        net.delete("c1", netns=path)
    leases = host.run(["ls", "/var/lib/cni/networks/net1"]).split()
    assert [each for each in leases if each[0].isdigit()] == []
    assert host.run(["ls", "/run/pycni/attachments"]) == ""


def test_del_finds_a_device_that_the_container_has_renamed(host: Host) -> None:
    net = network(host, ipam={})
    one = net.add("c1")
    one.sandbox.run(["ip", "link", "set", "eth0", "down"])
    one.sandbox.run(["ip", "link", "set", "eth0", "name", "other0"])
    net.delete("c1")
    assert one.sandbox.links() == ["lo"]


DAMAGES = {
    "address": ("ip addr del 10.1.0.2/24 dev eth0", "Failed to match addr 10.1.0.2/24 on interface eth0"),
    "route": ("ip route del default", "Expected Route {Dst: 0.0.0.0/0, GW: None} not found"),
    "down": ("ip link set eth0 down", "Interface eth0 is down"),
    "MAC": ("ip link set eth0 address 02:00:00:00:00:09", "Interface eth0 Mac 02:00:00:00:00:09"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_check_reports_what_repair_restores(host: Host, damage: str, message: str) -> None:
    net = network(host)
    one = net.add("c1")
    one.sandbox.run(damage.split())
    answer = net.check(one)
    assert answer.code == 104
    assert message in answer.text
    net.repair(one).must()
    net.check(one).must()


OTHERS = {
    "a tun device": ("tun", "user 1000 group 1001 multi_queue", "Interface eth0 is a tun device, not a tap"),
    "another owner": ("tap", "user 1 group 1001 multi_queue", "Interface eth0 has owner 1, not 1000"),
    "no group": ("tap", "user 1000 multi_queue", "Interface eth0 has group none, not 1001"),
    "one queue": ("tap", "user 1000 group 1001", "Interface eth0 has multiQueue false, not true"),
}


@pytest.mark.parametrize(("form", "options", "message"), OTHERS.values(), ids=OTHERS)
def test_check_is_not_satisfied_with_another_device(
    host: Host, form: str, options: str, message: str
) -> None:
    net = network(host, ipam={}, owner=1000, group=1001, multiQueue=True)
    one = net.add("c1")
    mac = shown_link(one)["address"]
    one.sandbox.run(["ip", "link", "del", "eth0"])
    one.sandbox.run(["ip", "tuntap", "add", "mode", form, "name", "eth0", *options.split()])
    if form == "tap":
        one.sandbox.run(["ip", "link", "set", "eth0", "address", mac, "up"])
    answer = net.check(one)
    assert answer.code == 104
    assert message in answer.text


def test_repair_without_the_device_says_that_an_add_is_needed(host: Host) -> None:
    net = network(host)
    one = net.add("c1")
    one.sandbox.run(["ip", "link", "del", "eth0"])
    answer = net.repair(one)
    assert answer.code == 104
    assert "eth0" in answer.msg
    assert "is gone and cannot be repaired" in answer.msg


def test_gc_removes_devices_records_and_leases_of_invalid_attachments(host: Host) -> None:
    net = network(host)
    one, two, three = net.add("c1"), net.add("c2"), net.add("c3")
    three.sandbox.delete()
    planned = net.gc("c1", dry_run=True).json
    assert sorted(each["kind"] for each in planned["stale"]) == ["lease"] * 4 + ["link", "record", "record"]
    net.gc("c1").must()
    assert (one.sandbox.links(), two.sandbox.links()) == (["lo", "eth0"], ["lo"])
    net.check(one).must()
    assert net.gc("c1", dry_run=True).json["stale"] == []


def test_status_asks_for_selinux_only_if_the_network_needs_it(host: Host) -> None:
    net = network(host)
    net.status().must()
    net.conf["selinuxContext"] = "system_u:system_r:container_t:s0"
    assert net.status().code == 50
    assert "this host has no SELinux" in net.status().text


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the policy of tests/data/selinux.conf as the kernel reads it."""
    if not shutil.which("checkpolicy"):
        pytest.skip("checkpolicy is not installed")
    compiled = tmp_path_factory.mktemp("policy") / "policy"
    source = Path(__file__).with_name("data") / "selinux.conf"
    command = ["checkpolicy", "-U", "allow", "-c", "33", "-o", str(compiled), str(source)]
    subprocess.run(command, check=True, env=BARE_ENV)
    return compiled.read_bytes()


def enforce(host: Host, policy: bytes) -> None:
    """Let SELinux enforce a policy. It is for the whole machine, and cannot be unloaded."""
    host.run(["mount", "-t", "selinuxfs", "selinuxfs", "/sys/fs/selinux"])
    host.call(load, policy)


def load(policy: bytes) -> None:
    Path("/sys/fs/selinux/load").write_bytes(policy)
    Path("/sys/fs/selinux/enforce").write_text("1")


@pytest.mark.needs_kernel("selinux")
def test_the_process_that_makes_the_device_has_the_context(host: Host, policy: bytes, tmp_path: Path) -> None:
    """The kernel labels a device as the process that makes it, which is ip."""
    enforce(host, policy)
    program, seen = tmp_path / "ip", tmp_path / "seen"
    program.write_text(
        f'#!/bin/sh\ncat /proc/self/attr/current >{seen}\nPATH={BARE_ENV["PATH"]}\nexec ip "$@"\n'
    )
    program.chmod(0o755)
    net = network(host, ipam={}, selinuxContext="u:r:made", multiQueue=True)
    net.status().must()
    one = net.add("c1", env={"PATH": f"{tmp_path}:{BARE_ENV['PATH']}"})
    assert seen.read_text().rstrip("\0\n") == "u:r:made"
    assert shown_link(one)["linkinfo"]["info_data"]["multi_queue"]
    net.check(one).must()
    net.delete("c1")
    assert one.sandbox.links() == ["lo"]


@pytest.mark.needs_kernel("selinux")
@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("u:r:refused", "permission denied"),
        ("u:r:unknown", "invalid argument"),
        ("usual", "invalid argument"),
    ],
)
def test_a_context_that_the_policy_refuses(host: Host, policy: bytes, label: str, reason: str) -> None:
    enforce(host, policy)
    host.sandbox("c0")
    net = network(host, selinuxContext=label)
    before = host.snapshot()
    answer = net.call("ADD", "c0")
    assert answer.code == 7
    assert answer.text.startswith(f'failed to create tap: SELinux refuses "{label}": {reason}')
    assert host.snapshot() == before
    net.conf["selinuxContext"] = "u:r:made"
    net.call("ADD", "c0").must()


def make(path: str, *, by_program: bool) -> tuple[str, Settings, bool]:
    """Make a device in the namespace at a path; return its kind, its settings, and whether it is a tap."""
    settings = Settings(multi_queue=True, owner=1000, group=1001)
    with netns.open_netns(path) as ns, Netlink(ns) as nl:
        if by_program:
            with ns.entered():
                tap.run_program("t0", settings)
        else:
            assert tap.create(nl, ns, "t0", settings)
            assert not tap.create(nl, ns, "t0", settings)
        own = link.get(nl, "t0")
        return own.kind, tap.describe(own)._replace(mac=""), tap.is_tap(own)


def test_the_program_makes_the_same_device(host: Host) -> None:
    """With an SELinux context a program makes the device."""
    one, two = host.sandbox("one"), host.sandbox("two")
    expected = (tap.KIND, Settings(multi_queue=True, owner=1000, group=1001, mtu=1500), True)
    assert host.call(make, one.path, by_program=False) == expected
    assert host.call(make, two.path, by_program=True) == expected
    with pytest.raises(CniError) as caught:
        host.call(make, two.path, by_program=True)
    assert "failed to create tap: " in str(caught.value)
