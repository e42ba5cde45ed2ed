"""The loopback plugin on real namespaces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.versions import SUPPORTED

if TYPE_CHECKING:
    from cni.testing import Host

CONF = {"cniVersion": "1.1.0", "name": "lo", "type": "loopback"}
INTERFACE = {"name": "lo", "mac": "00:00:00:00:00:00"}


def test_add_makes_the_container_reach_itself(host: Host) -> None:
    box = host.sandbox("c1")
    answer = host.plugin("loopback", "ADD", CONF, netns=box).must()
    assert answer == {
        "cniVersion": "1.1.0",
        "interfaces": [INTERFACE | {"sandbox": box.path}],
        "ips": [{"interface": 0, "address": "127.0.0.1/8"}, {"interface": 0, "address": "::1/128"}],
    }
    with box.serve(80):
        assert box.dial("127.0.0.1", 80).address == "127.0.0.1"
        assert box.dial("::1", 80).address == "::1"


@pytest.mark.parametrize("version", SUPPORTED)
def test_the_result_has_the_shape_of_the_version(host: Host, version: str) -> None:
    answer = host.plugin("loopback", "ADD", CONF | {"cniVersion": version}, netns=host.sandbox("c1")).must()
    if version in {"0.1.0", "0.2.0"}:
        assert answer["ip4"] == {"ip": "127.0.0.1/8"}
        assert answer["ip6"] == {"ip": "::1/128"}
    else:
        assert ("version" in answer["ips"][0]) == (version < "1")


def test_add_passes_the_result_of_a_chain_on(host: Host) -> None:
    previous = {"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.2/24"}]}
    answer = host.plugin("loopback", "ADD", CONF | {"prevResult": previous}, netns=host.sandbox("c1"))
    assert answer.must() == previous


def test_an_address_of_something_else_on_lo_is_refused(host: Host) -> None:
    box = host.sandbox("c1")
    box.run(["ip", "addr", "add", "10.1.0.2/24", "dev", "lo"])
    before = host.snapshot()
    answer = host.plugin("loopback", "ADD", CONF, netns=box)
    assert answer.msg == 'loopback interface found with non-loopback address "10.1.0.2/24"'
    assert host.snapshot() == before


def test_check_reports_the_state_of_lo(host: Host) -> None:
    box = host.sandbox("c1")
    assert host.plugin("loopback", "CHECK", CONF, netns=box).msg == "loopback interface is down"
    host.plugin("loopback", "ADD", CONF, netns=box).must()
    host.plugin("loopback", "CHECK", CONF, netns=box).must()


def test_check_reports_all_differences_and_repair_restores_them(host: Host) -> None:
    box = host.sandbox("c1")
    result = host.plugin("loopback", "ADD", CONF, netns=box).must()
    box.run(["ip", "addr", "flush", "dev", "lo"])
    box.run(["ip", "link", "set", "lo", "down"])
    answer = host.plugin("loopback", "CHECK", CONF | {"prevResult": result}, netns=box)
    assert answer.msg == "loopback interface is down"
    assert "loopback interface lacks 127.0.0.1/8" in answer.json["details"]
    told = host.plugin("loopback", "PYCNI_REPAIR", CONF | {"prevResult": result}, netns=box).must()
    assert told == {"failed": [], "repaired": ["switched lo on"]}
    host.plugin("loopback", "CHECK", CONF | {"prevResult": result}, netns=box).must()
    told = host.plugin("loopback", "PYCNI_REPAIR", CONF | {"prevResult": result}, netns=box).must()
    assert told == {"failed": [], "repaired": []}


def test_del_switches_lo_off_and_may_come_twice(host: Host) -> None:
    box = host.sandbox("c1")
    host.plugin("loopback", "ADD", CONF, netns=box).must()
    for _ in range(2):
        host.plugin("loopback", "DEL", CONF, netns=box).must()
        assert "UP" not in box.json(["ip", "-j", "link", "show", "lo"])[0]["flags"]


@pytest.mark.parametrize("netns", ["", "/run/netns/gone", "/etc/hostname"])
def test_del_succeeds_without_a_netns(host: Host, netns: str) -> None:
    assert host.plugin("loopback", "DEL", CONF, netns=netns).must() == {}


def test_add_needs_a_network_namespace(host: Host) -> None:
    host.run(["touch", "/run/netns/plain"])
    for name, why in {
        "gone": 'failed to Statfs "/run/netns/gone": no such file or directory',
        "plain": 'unknown FS magic on "/run/netns/plain": 1021994',
    }.items():
        answer = host.plugin("loopback", "ADD", CONF, netns=f"/run/netns/{name}")
        assert answer.code == 8
        assert answer.msg == f'failed to open netns "/run/netns/{name}": {why}'


def test_status_and_gc_succeed(host: Host) -> None:
    for verb in ("STATUS", "GC"):
        assert host.plugin("loopback", verb, CONF | {"cni.dev/valid-attachments": []}).must() == {}
