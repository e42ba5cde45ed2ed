"""ADD, CHECK and DEL on a real folder: what is answered and what lies on disk afterwards."""

from __future__ import annotations

import io
import json
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from cni import skel
from cni.errors import Code
from cni.testing.direct import call
from cni.versions import SUPPORTED
from cni_host_local_ipam import PLUGIN

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing.answer import Answer

SIX_ADDRESSES: dict[str, Any] = {"ranges": [[{"subnet": "10.1.0.0/29"}]]}
DUAL: dict[str, Any] = {"ranges": [[{"subnet": "10.1.0.0/29"}], [{"subnet": "fd00::/125"}]]}


class Network:
    """One network whose leases lie below a folder of the test."""

    def __init__(self, top: Path) -> None:
        self.top = top / "networks"
        self.folder = self.top / "net"

    def conf(self, ipam: dict[str, Any], **others: Any) -> dict[str, Any]:
        located = {"type": "host-local", "dataDir": str(self.top)} | ipam
        return {"cniVersion": "1.1.0", "name": "net", "ipam": located} | others

    def add(self, container_id: str, ipam: dict[str, Any], **others: Any) -> Answer:
        args = others.pop("cni_args", "")
        return call(PLUGIN, "ADD", self.conf(ipam, **others), container_id=container_id, args=args)

    def delete(self, container_id: str, ipam: dict[str, Any] = SIX_ADDRESSES, **named: Any) -> Answer:
        return call(PLUGIN, "DEL", self.conf(ipam), container_id=container_id, **named)

    def check(self, container_id: str, ipam: dict[str, Any] = SIX_ADDRESSES) -> Answer:
        return call(PLUGIN, "CHECK", self.conf(ipam), container_id=container_id)

    def put(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def files(self) -> dict[str, bytes]:
        found = [each for each in self.folder.rglob("*") if each.is_file()]
        return {str(each.relative_to(self.folder)): each.read_bytes() for each in found}

    def leases(self) -> dict[str, bytes]:
        return {name: text for name, text in self.files().items() if name[0].isdigit() or name[:2] == "fd"}


@pytest.fixture
def network(tmp_path: Path) -> Network:
    return Network(tmp_path)


def requesting(*addresses: str) -> dict[str, Any]:
    return {"runtimeConfig": {"ips": list(addresses)}}


def test_files_are_those_of_the_go_plugin_byte_for_byte(network: Network) -> None:
    umask = os.umask(0o022)
    try:
        network.add("c1", DUAL).must()
    finally:
        os.umask(umask)
    assert network.files() == {
        "10.1.0.2": b"c1\r\neth0",
        "fd00::2": b"c1\r\neth0",
        "last_reserved_ip.0": b"10.1.0.2",
        "last_reserved_ip.1": b"fd00::2",
        "lock": b"",
    }
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in network.folder.iterdir()}
    assert modes.pop("lock") == 0o750
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(network.folder.stat().st_mode) == 0o755


@pytest.mark.parametrize("version", SUPPORTED)
def test_the_result_has_addresses_routes_and_dns_but_no_interfaces(network: Network, version: str) -> None:
    resolv_conf = network.put("../../resolv.conf", b"nameserver 1.1.1.1\nsearch a b\n")
    ipam = DUAL | {"routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0", "gw": "fd00::1"}]}
    ipam |= {"resolvConf": str(resolv_conf)}
    result = network.add("c1", ipam, cniVersion=version).must()
    dns = {"nameservers": ["1.1.1.1"], "search": ["a", "b"]}
    four = {"address": "10.1.0.2/29", "gateway": "10.1.0.1"}
    six = {"address": "fd00::2/125", "gateway": "fd00::1"}
    if version < "0.3.0":
        assert result == {
            "cniVersion": version,
            "ip4": {"ip": "10.1.0.2/29", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0"}]},
            "ip6": {"ip": "fd00::2/125", "gateway": "fd00::1", "routes": [{"dst": "::/0", "gw": "fd00::1"}]},
            "dns": dns,
        }
        return
    if version < "1.0.0":
        four, six = four | {"version": "4"}, six | {"version": "6"}
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "::/0", "gw": "fd00::1"}]
    assert result == {"cniVersion": version, "ips": [four, six], "routes": routes, "dns": dns}


def test_a_freed_address_waits_until_the_ring_comes_round(network: Network) -> None:
    given = []
    for number in range(8):
        given += network.add(f"c{number}", SIX_ADDRESSES).addresses
        network.delete(f"c{number}").must()
    assert [each[-1] for each in given] == ["2", "3", "4", "5", "6", "2", "3", "4"]


def test_an_exhausted_set_is_told_and_nothing_changes(network: Network) -> None:
    for number in range(5):
        network.add(f"c{number}", SIX_ADDRESSES).must()
    before = network.files()
    answer = network.add("c9", SIX_ADDRESSES)
    text = "failed to allocate for range 0: no IP addresses available in range set: 10.1.0.1-10.1.0.6"
    assert (answer.code, answer.msg) == (Code.POOL, text)
    assert str(network.folder) in answer.json["details"]
    assert network.files() == before


def test_empty_files_of_a_crash_are_taken_when_nothing_else_is_left(network: Network) -> None:
    for last in range(2, 7):
        network.put(f"10.1.0.{last}", b"")
    assert network.add("c1", SIX_ADDRESSES).addresses == ["10.1.0.2"]
    assert network.add("c2", SIX_ADDRESSES).addresses == ["10.1.0.3"]
    assert network.leases() == {
        "10.1.0.2": b"c1\r\neth0",
        "10.1.0.3": b"c2\r\neth0",
        "10.1.0.4": b"",
        "10.1.0.5": b"",
        "10.1.0.6": b"",
    }


def test_free_addresses_go_before_empty_files(network: Network) -> None:
    network.put("10.1.0.2", b"")
    assert network.add("c1", SIX_ADDRESSES).addresses == ["10.1.0.3"]


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ({"cni_args": "IP=10.1.0.5"}, "10.1.0.5"),
        ({"cni_args": "IgnoreUnknown=1;K8S_POD_NAME=x;IP=10.1.0.5/8"}, "10.1.0.5"),
        ({"cni_args": "IP="}, "10.1.0.2"),
        ({"args": {"cni": {"ips": ["10.1.0.4"]}}}, "10.1.0.4"),
        (requesting("::ffff:10.1.0.3"), "10.1.0.3"),
    ],
)
def test_an_address_is_requested_in_three_ways(
    network: Network, others: dict[str, Any], expected: str
) -> None:
    assert network.add("c1", SIX_ADDRESSES, **others).addresses == [expected]
    assert network.files()["last_reserved_ip.0"] == expected.encode()


def test_requests_of_all_ways_add_up_in_order(network: Network) -> None:
    others = requesting("10.1.0.3", "10.1.0.5") | {"args": {"cni": {"ips": ["10.1.0.4", "10.1.0.5"]}}}
    answer = network.add("c1", SIX_ADDRESSES, cni_args="IP=10.1.0.6", **others)
    assert answer.code == Code.POOL
    assert answer.msg == "failed to allocate all requested IPs: 10.1.0.4 10.1.0.5 10.1.0.3"
    assert not network.top.exists()


def test_a_request_for_each_family_and_one_for_the_other_set(network: Network) -> None:
    assert network.add("c1", DUAL, **requesting("fd00::5", "10.1.0.5")).addresses == ["10.1.0.5", "fd00::5"]
    assert network.add("c2", DUAL, **requesting("fd00::4")).addresses == ["10.1.0.6", "fd00::4"]


def test_a_requested_gateway_is_refused(network: Network) -> None:
    answer = network.add("c1", SIX_ADDRESSES, **requesting("10.1.0.1"))
    assert answer.code == Code.POOL
    assert answer.msg == "failed to allocate for range 0: requested ip 10.1.0.1 is subnet's gateway"


def test_a_requested_address_of_another_container_tells_whose_it_is(network: Network) -> None:
    network.add("first", SIX_ADDRESSES, **requesting("10.1.0.5")).must()
    before = network.files()
    answer = network.add("second", SIX_ADDRESSES, **requesting("10.1.0.5"))
    assert answer.code == Code.POOL
    assert answer.msg == (
        "failed to allocate for range 0: requested IP address 10.1.0.5 is not available in range set "
        "10.1.0.1-10.1.0.6: it is held by container first, interface eth0"
    )
    assert f"{network.folder}/10.1.0.5" in answer.json["details"]
    assert "DEL" in answer.json["details"]
    assert network.files() == before


@pytest.mark.parametrize("content", [b"c1\r\neth0", b"c1", b"c1\r\neth0\n"])
def test_asking_again_for_the_address_it_holds_is_a_success(network: Network, content: bytes) -> None:
    network.put("10.1.0.5", content)
    assert network.add("c1", SIX_ADDRESSES, **requesting("10.1.0.5")).addresses == ["10.1.0.5"]
    assert network.leases() == {"10.1.0.5": content}


def test_a_failing_add_keeps_what_was_held_before(network: Network) -> None:
    network.add("c1", SIX_ADDRESSES, **requesting("10.1.0.5")).must()
    before = network.files()
    assert network.add("c1", DUAL, **requesting("10.1.0.5", "10.9.9.9")).code == Code.POOL
    assert network.files() == before


def test_a_second_add_tells_file_and_remedy(network: Network) -> None:
    network.add("c1", SIX_ADDRESSES).must()
    before = network.files()
    answer = network.add("c1", SIX_ADDRESSES)
    assert answer.code == Code.ALREADY_EXISTS
    assert answer.msg == (
        "failed to allocate for range 0: 10.1.0.2 has been allocated to c1, "
        "duplicate allocation is not allowed"
    )
    assert f"{network.folder}/10.1.0.2" in answer.json["details"]
    assert network.files() == before


def test_another_interface_of_the_container_gets_its_own_address(network: Network) -> None:
    network.add("c1", SIX_ADDRESSES).must()
    answer = call(PLUGIN, "ADD", network.conf(SIX_ADDRESSES), container_id="c1", ifname="eth1")
    assert answer.addresses == ["10.1.0.3"]
    network.delete("c1", ifname="eth1").must()
    assert network.leases() == {"10.1.0.2": b"c1\r\neth0"}


def test_a_set_that_fails_gives_back_those_before_it(network: Network) -> None:
    network.put("fd00::2", b"other\r\neth0")
    before = network.files()
    answer = network.add("c1", DUAL, **requesting("fd00::2"))
    assert answer.msg.startswith(
        "failed to allocate for range 1: requested IP address fd00::2 is not available"
    )
    assert {name: text for name, text in network.files().items() if name != "lock"} == before


def test_an_add_whose_answer_cannot_be_written_leaves_nothing(network: Network) -> None:
    names = {"CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_NETNS": "/no", "CNI_PATH": "/"}
    stdin = io.BytesIO(json.dumps(network.conf(DUAL)).encode())
    with open("/dev/full", "wb", buffering=0) as full:  # noqa: PTH123 - Path has it, but not so typed
        assert skel.run(lambda: PLUGIN, {"CNI_COMMAND": "ADD"} | names, stdin, full) == 1
    assert not network.top.exists()


def test_del_releases_whatever_ranges_are_configured_now(network: Network) -> None:
    network.add("c1", DUAL).must()
    network.delete("c1", {"subnet": "172.16.0.0/24"}).must()
    assert network.leases() == {}
    assert network.files()["last_reserved_ip.0"] == b"10.1.0.2"


@pytest.mark.parametrize("netns", ["", "/run/netns/gone", "/etc/passwd"])
def test_del_of_nothing_succeeds_and_makes_nothing(network: Network, netns: str) -> None:
    assert network.delete("c1", netns=netns).must() == {}
    assert not network.top.exists()


def test_del_twice_succeeds_and_keeps_others(network: Network) -> None:
    network.add("c1", SIX_ADDRESSES).must()
    network.add("c2", SIX_ADDRESSES).must()
    network.delete("c1").must()
    network.delete("c1").must()
    assert network.leases() == {"10.1.0.3": b"c2\r\neth0"}


def test_del_takes_old_files_only_when_there_is_no_exact_one(network: Network) -> None:
    network.put("10.1.0.2", b"c1")
    network.put("10.1.0.3", b"c1\r\neth0")
    network.delete("c1").must()
    assert network.leases() == {"10.1.0.2": b"c1"}
    network.delete("c1").must()
    assert network.leases() == {}


def test_del_looks_into_subfolders_and_at_odd_names_as_go_does(network: Network) -> None:
    network.put("old/10.1.0.2", b"c1\r\neth0\n")
    network.put("10.1.0.3~", b" c1\r\neth0")
    network.put("10.1.0.4", b"c1x\r\neth0")
    network.delete("c1").must()
    assert network.leases() == {"10.1.0.4": b"c1x\r\neth0"}


def test_check_finds_the_address_in_either_format(network: Network) -> None:
    answer = network.check("c1")
    assert answer.code == Code.MISMATCH
    assert answer.msg == "host-local: Failed to find address added by container c1"
    assert not network.top.exists()
    network.add("c1", SIX_ADDRESSES).must()
    network.check("c1").must()
    network.put("10.1.0.9", b"c2")
    network.check("c2").must()
    network.put("10.1.0.9", b"c2\r\neth7")
    assert network.check("c2").code == Code.MISMATCH


@pytest.mark.parametrize("verb", ["ADD", "CHECK", "DEL"])
@pytest.mark.parametrize(
    ("args", "msg"),
    [
        ("IP=foo", 'ARGS: error parsing value of pair "IP=foo": invalid IP address foo'),
        ("MAC=02:00:00:00:00:01", 'ARGS: unknown args ["MAC=02:00:00:00:00:01"]'),
        ("IP", 'ARGS: invalid pair "IP"'),
    ],
)
def test_malformed_args_are_reported(network: Network, verb: str, args: str, msg: str) -> None:
    answer = call(PLUGIN, verb, network.conf(SIX_ADDRESSES), args=args)
    assert (answer.code, answer.msg) == (Code.INVALID_ENVIRONMENT, msg)
    assert not network.top.exists()


def test_a_missing_resolv_conf_is_reported_before_anything_is_taken(network: Network) -> None:
    answer = network.add("c1", SIX_ADDRESSES | {"resolvConf": "/no/resolv.conf"})
    assert answer.code == Code.IO_FAILURE
    assert answer.msg == "open /no/resolv.conf: no such file or directory"
    assert not network.top.exists()


def test_odd_resolv_confs_do_not_hang(network: Network, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    network.add("c1", SIX_ADDRESSES | {"resolvConf": str(tmp_path / "fifo")}).must()
    network.add("c2", SIX_ADDRESSES | {"resolvConf": "/dev/zero"}).must()
    assert network.add("c3", SIX_ADDRESSES | {"resolvConf": str(tmp_path)}).code == Code.IO_FAILURE


def test_a_network_of_2_to_the_104_addresses_works(network: Network) -> None:
    ipam = {"ranges": [[{"subnet": "1100:200::/24"}]]}
    assert network.add("c1", ipam).addresses == ["1100:200::2"]
    assert call(PLUGIN, "STATUS", network.conf(ipam)).ok


def test_two_networks_do_not_share_addresses(network: Network) -> None:
    network.add("c1", SIX_ADDRESSES).must()
    assert network.add("c1", SIX_ADDRESSES, name="other").addresses == ["10.1.0.2"]
