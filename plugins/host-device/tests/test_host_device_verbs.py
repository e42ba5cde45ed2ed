"""All verbs of the host-device plugin on real hosts: what it moves, restores, compares and refuses.

The device is hd0, an end of a veth pair whose other end is in the namespace `wire`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import Sandbox
from cni.testing.network import Attached, Network

if TYPE_CHECKING:
    from cni.testing import Host

MAC = "02:00:00:00:00:a0"
IPAM = {
    "type": "host-local",
    "ranges": [
        [{"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.10"}],
        [{"subnet": "2001:db8:ffff::/64", "rangeStart": "2001:db8:ffff::10"}],
    ],
    "routes": [{"dst": "0.0.0.0/0"}],
}


def quiet(place: Any) -> None:
    """Let the kernel add no link-local addresses to new links, which it does at a time of its own."""
    place.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/default/addr_gen_mode"])


def network(host: Host, **keys: Any) -> Network:
    """Add the device to the host, with a name, an alias, an MTU and addresses of its own."""
    quiet(host)
    wire = host.sandbox("wire")
    host.run(
        ["ip", "-batch", "-"],
        f"""\
link add hd0 address {MAC} mtu 1450 type veth peer name far netns wire
link set hd0 alias uplink up
addr add 198.51.100.7/24 brd + dev hd0
addr add 2001:db8:7::7/64 dev hd0 nodad
""",
    )
    wire.run(
        ["ip", "-batch", "-"],
        """\
link set far up
addr add 192.0.2.1/24 dev far
addr add 2001:db8:ffff::1/64 dev far nodad
""",
    )
    net = Network(host, "host-device", **{"device": "hd0", "ipam": IPAM, **keys})
    del net.conf["bridge"]
    # Folders and locks that stay.
    net.host.run(["mkdir", "-p", "/run/pycni"])
    return net


def link_of(place: Any, name: str) -> dict[str, Any]:
    shown: dict[str, Any] = place.json(["ip", "-d", "-j", "link", "show", name])[0]
    return shown


def leases(host: Host) -> list[str]:
    names = host.run(["ls", "/var/lib/cni/networks/net1"]).split()
    return [each for each in names if each[0].isdigit()]


def test_the_container_has_the_device_and_its_traffic(host: Host) -> None:
    net = network(host)
    one = net.add("c1")
    shown = link_of(one.sandbox, "eth0")
    assert one.answer.json["interfaces"] == [
        {"name": "eth0", "mac": MAC, "sandbox": one.sandbox.path, "mtu": 1450}
    ]
    assert [(each["address"], each["interface"]) for each in one.answer.json["ips"]] == [
        ("192.0.2.10/24", 0),
        ("2001:db8:ffff::10/64", 0),
    ]
    # The Go plugin's DEL reads the alias.
    assert (shown["ifalias"], "UP" in shown["flags"]) == ("hd0", True)
    assert host.links() == ["lo"]
    net.check(one).must()
    with one.sandbox.serve(80):
        wire = Sandbox(host, "wire")
        assert wire.dial("192.0.2.10", 80).address == "192.0.2.1"
        assert wire.dial("2001:db8:ffff::10", 80).address == "2001:db8:ffff::1"


def mount_sysfs(host: Host) -> None:
    """Mount the sysfs of the host's own network namespace."""
    host.run(["mount", "-t", "sysfs", "sysfs", "/sys"])


def add_bus(host: Host, bus: str, bus_id: str, below: str, driver: str = "igb") -> None:
    """Add a device to a bus of the host; a folder `below` its own shows what it is for."""
    host.run(["mount", "-t", "tmpfs", "tmpfs", "/sys/bus"])
    folder = f"/sys/bus/{bus}/devices/{bus_id}"
    host.run(["mkdir", "-p", f"{folder}/{below}"])
    host.run(["ln", "-s", f"../../../drivers/{driver}", f"{folder}/driver"])


KEYS: dict[str, dict[str, Any]] = {
    "device": {"device": "hd0"},
    "hwaddr": {"hwaddr": "02-00-00-00-00-A0"},
    "kernelpath": {"kernelpath": "/sys/devices/virtual/net/hd0"},
}


@pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS)
def test_the_device_is_found_by_each_key(host: Host, keys: dict[str, Any]) -> None:
    net = network(host, **{"device": "", "ipam": {}, **keys})
    mount_sysfs(host)
    one = net.add("c1")
    assert link_of(one.sandbox, "eth0")["address"] == MAC
    net.check(one).must()
    net.delete("c1")
    assert link_of(host, "hd0")["address"] == MAC


BUSES: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "PCI": ("pci", "0000:03:00.1", "net/hd0", {"pciBusID": "0000:03:00.1"}),
    "virtio": ("pci", "0000:00:04.0", "virtio2/net/hd0", {"pciBusID": "0000:00:04.0"}),
    "the runtime": ("pci", "0000:03:00.1", "net/hd0", {"runtimeConfig": {"deviceID": "0000:03:00.1"}}),
    "auxiliary": (
        "auxiliary",
        "mlx5_core.sf.4",
        "net/hd0",
        {"runtimeConfig": {"deviceID": "mlx5_core.sf.4"}},
    ),
}


@pytest.mark.parametrize(("bus", "bus_id", "below", "keys"), BUSES.values(), ids=BUSES)
def test_the_device_is_found_on_its_bus(
    host: Host, bus: str, bus_id: str, below: str, keys: dict[str, Any]
) -> None:
    net = network(host, **{"device": "", "ipam": {}, **keys})
    add_bus(host, bus, bus_id, below)
    one = net.add("c1")
    assert link_of(one.sandbox, "eth0")["address"] == MAC
    assert one.answer.json["interfaces"][0]["pciID"] == bus_id
    net.check(one).must()
    net.delete("c1")
    assert link_of(host, "hd0")["address"] == MAC


def test_a_device_of_a_program_in_user_space_is_not_moved(host: Host) -> None:
    net = network(host, device="", pciBusID="0000:03:00.1")
    add_bus(host, "pci", "0000:03:00.1", "net/hd0", "vfio-pci")
    one = net.add("c1")
    assert one.answer.json["interfaces"] == [
        {"name": "eth0", "sandbox": one.sandbox.path, "pciID": "0000:03:00.1"}
    ]
    assert one.answer.addresses == ["192.0.2.10", "2001:db8:ffff::10"]
    assert (one.sandbox.links(), "hd0" in host.links()) == (["lo"], True)
    net.check(one).must()
    net.repair(one).must()
    for _ in range(2):
        net.delete("c1")
    assert leases(host) == []


CHANGES = {
    "nothing": [],
    "its MAC address and MTU": ["link set eth0 address 02:00:00:00:00:09 mtu 1300"],
    "its name": ["link set eth0 down", "link set eth0 name other0"],
    "its alias": ["link set eth0 alias docker0"],
    "its name and alias": [
        "link set eth0 down",
        "link set eth0 name other0",
        "link set other0 alias docker0",
    ],
}


@pytest.mark.parametrize("lines", CHANGES.values(), ids=CHANGES)
def test_del_gives_the_device_back_as_it_was(host: Host, lines: list[str]) -> None:
    """The container may have changed it."""
    net = network(host)
    net.add("first")
    net.delete("first")
    sandbox = host.sandbox("c1")
    before = host.snapshot()
    assert link_of(host, "hd0")["ifalias"] == "uplink"
    net.call("ADD", "c1").must()
    sandbox.run(["ip", "-batch", "-"], "".join(f"{each}\n" for each in lines))
    for _ in range(2):
        net.delete("c1")
    assert before.differences(host.snapshot()) == []


def test_a_device_that_was_down_stays_down(host: Host) -> None:
    net = network(host, ipam={})
    host.run(["ip", "link", "set", "hd0", "down"])
    one = net.add("c1")
    assert "UP" in link_of(one.sandbox, "eth0")["flags"]
    net.delete("c1")
    assert "UP" not in link_of(host, "hd0")["flags"]


def test_a_name_that_the_host_has_given_away_is_not_taken_back(host: Host) -> None:
    net = network(host, ipam={})
    net.add("c1")
    host.run(["ip", "link", "add", "hd0", "type", "veth", "peer", "name", "other"])
    net.delete("c1")
    assert link_of(host, "dev0")["address"] == MAC
    assert host.addresses("dev0") == ["198.51.100.7/24", "2001:db8:7::7/64"]


def test_del_without_a_path_finds_the_device_by_its_record(host: Host) -> None:
    net = network(host)
    one = net.add("c1")
    for _ in range(2):
        net.delete("c1", netns="")
    assert one.sandbox.links() == ["lo"]
    assert link_of(host, "hd0")["address"] == MAC
    assert leases(host) == []


def test_a_virtual_device_ends_with_its_namespace_and_del_succeeds(host: Host) -> None:
    net = network(host)
    one = net.add("c1")
    one.sandbox.delete()
    for _ in range(2):
        net.delete("c1")
    assert leases(host) == []
    assert host.run(["ls", "/run/pycni/attachments"]) == ""


@pytest.mark.parametrize("is_path_reused", [False, True])
def test_a_device_that_the_kernel_has_returned_gets_its_name_back(
    host: Host, *, is_path_reused: bool
) -> None:
    """Hardware is back on the host when its namespace has ended, under the container's name for it."""
    net = network(host)
    one = net.add("c1")
    one.sandbox.run(["ip", "link", "set", "eth0", "netns", str(host.pid)])
    one.sandbox.delete()
    if is_path_reused:
        host.sandbox("c1")
    assert link_of(host, "eth0")["ifalias"] == "hd0"
    net.delete("c1")
    shown = link_of(host, "hd0")
    assert (shown["ifalias"], shown["address"], "UP" in shown["flags"]) == ("uplink", MAC, True)
    assert host.addresses("hd0") == ["198.51.100.7/24", "2001:db8:7::7/64"]


FAILURES: dict[str, tuple[dict[str, Any], dict[str, Any], int, str]] = {
    "a device that is not there": (
        {"device": "none0"},
        {},
        100,
        'failed to find host device "none0": Link not found; the host has hd0',
    ),
    "a MAC address of no device": (
        {"device": "", "hwaddr": "02:00:00:00:00:01"},
        {},
        100,
        "no link with MAC address 02:00:00:00:00:01",
    ),
    "a path of no device": (
        {"device": "", "kernelpath": "/sys/devices/none"},
        {},
        100,
        "no link with kernel path /sys/devices/none",
    ),
    "a device of the runtime that is not there": (
        {"runtimeConfig": {"deviceID": "0000:ff:00.0"}},
        {},
        7,
        "runtime config DeviceID 0000:ff:00.0 not found or unsupported",
    ),
    "lo": ({"device": "lo"}, {}, 7, "lo cannot be moved: it is the loopback device"),
    "a name of the container's": ({}, {"ifname": "eth9"}, 105, 'failed to move link: "eth9" exists in'),
    "a name of no link": ({}, {"ifname": "eth%d"}, 4, 'no link can be called "eth%d"'),
    "an IPAM that is not there": ({"ipam": {"type": "nowhere"}}, {}, 7, 'failed to find plugin "nowhere"'),
    "a route that the kernel refuses": (
        {"ipam": {**IPAM, "routes": [{"dst": "0.0.0.0/0", "gw": "203.0.113.1"}]}},
        {},
        100,
        "network is unreachable",
    ),
}


@pytest.mark.parametrize(("keys", "options", "code", "message"), FAILURES.values(), ids=FAILURES)
def test_an_add_that_fails_gives_the_device_back(
    host: Host, keys: dict[str, Any], options: dict[str, Any], code: int, message: str
) -> None:
    net = network(host, **keys)
    sandbox = host.sandbox("c1")
    sandbox.run(["ip", "link", "add", "eth9", "type", "veth", "peer", "name", "eth8"])
    before = host.snapshot()
    answer = net.call("ADD", "c1", **options)
    assert not answer.ok
    assert answer.code == code
    assert message in answer.text
    assert before.differences(host.snapshot()) == []


def test_a_second_add_does_not_harm_the_first(host: Host) -> None:
    """Nor does that of another container, nor its DEL."""
    net = network(host)
    sandbox = host.sandbox("c1")
    quiet(sandbox)
    host.sandbox("c2")
    one = Attached("c1", sandbox, net.call("ADD", "c1"))
    before = host.snapshot()
    assert (net.call("ADD", "c1").code, net.call("ADD", "c2").code) == (105, 100)
    net.delete("c2")
    assert before.differences(host.snapshot()) == []
    net.check(one).must()
    net.delete("c1")
    assert "hd0" in host.links()


DAMAGES = {
    "address": ("ip addr del 192.0.2.10/24 dev eth0", "Failed to match addr 192.0.2.10/24 on interface eth0"),
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


def test_a_device_that_is_gone_cannot_be_repaired(host: Host) -> None:
    net = network(host)
    one = net.add("c1")
    one.sandbox.run(["ip", "link", "del", "eth0"])
    assert "Interface eth0 does not exist" in net.check(one).text
    answer = net.repair(one)
    assert (answer.code, answer.msg) == (
        104,
        f"the device eth0 in {one.sandbox.path} is gone and cannot be repaired",
    )
    net.delete("c1")


def test_gc_gives_devices_of_invalid_attachments_back(host: Host) -> None:
    net = network(host)
    one: Attached = net.add("c1")
    net.gc("c1").must()
    net.check(one).must()
    planned = net.gc(dry_run=True).json["stale"]
    assert sorted((each["kind"], each["name"]) for each in planned if each["kind"] == "device") == [
        ("device", "hd0")
    ]
    net.gc().must()
    assert host.addresses("hd0") == ["198.51.100.7/24", "2001:db8:7::7/64"]
    assert (leases(host), host.run(["ls", "/run/pycni/attachments"])) == ([], "")


def test_status_needs_the_device_unless_a_container_has_it(host: Host) -> None:
    net = network(host)
    net.status().must()
    net.add("c1")
    net.status().must()
    net.delete("c1")
    host.run(["ip", "link", "del", "hd0"])
    assert net.status().code == 50
    assert 'failed to find host device "hd0": Link not found' in net.status().text
