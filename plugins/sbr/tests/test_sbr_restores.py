"""DEL, GC and an ADD that fails give an interface back all routes that it had, as they were."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import Host, warm, why_no_namespaces
from cni.testing.faults import KILL, TELL, TERM, Fault, list_met

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.testing import Answer, Sandbox


# What a container may have: each would come back different if only destination and gateway were kept.
ROUTES = [
    "route add default via 10.1.0.1 dev net1 mtu 1400",
    "route add default via 10.1.0.9 dev net1 metric 50",
    "route add 10.20.0.0/16 via 10.1.0.1 dev net1 src 10.1.0.3 proto static",
    "route add 10.30.0.0/16 dev net1 scope link initcwnd 20 advmss 1200",
    "route add 10.40.0.0/16 via 172.16.0.1 dev net1 onlink",
    "route add default via fd01::1 dev net1 pref high",
    "route add fd20::/64 via fd01::1 dev net1 metric 7 proto static mtu 1300",
    "route append fd30::/64 via fd01::1 dev net1",
    "route append fd30::/64 via fd01::9 dev net1",
    "route append fd40::/64 dev net1",
    "route append fd40::/64 via fd02::1 dev net2",
]
CONFS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "source hints": {"addSourceHints": True},
    "gateways": {"gateways": ["10.1.0.5", "fd01::5"]},
    "table": {"table": 500},
}
LINKS = (1, 2, 3, 4)


class Place:
    """A container with several links, two addresses of each family on each, and many routes by the first."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.sandbox = self.make_sandbox()

    def make_sandbox(self) -> Sandbox:
        sandbox = self.host.sandbox("c1")
        # The kernel adds link-local addresses and their routes at a later time of its own.
        sandbox.run(["sysctl", "-q", "-w", "net.ipv6.conf.default.addr_gen_mode=1"])
        lines = ["link set lo up"]
        for number in LINKS:
            lines += [f"link add net{number} type veth peer name far{number}"]
            lines += [f"addr add 10.{number}.0.{last}/24 dev net{number}" for last in (2, 3)]
            lines += [f"addr add fd0{number}::{last}/64 dev net{number} nodad" for last in (2, 3)]
            lines += [f"link set net{number} up", f"link set far{number} up"]
        sandbox.run(["ip", "-batch", "-"], "".join(f"{line}\n" for line in [*lines, *ROUTES]))
        return sandbox

    def call(self, verb: str, number: int = 1, fault: Fault | None = None, **keys: Any) -> Answer:
        ips = [
            {"address": f"10.{number}.0.2/24", "gateway": f"10.{number}.0.1", "interface": 0},
            {"address": f"fd0{number}::2/64", "gateway": f"fd0{number}::1", "interface": 0},
        ]
        name = f"net{number}"
        result = {
            "cniVersion": "1.1.0",
            "interfaces": [{"name": name, "sandbox": "/run/netns/c1"}],
            "ips": ips,
        }
        conf = {"cniVersion": "1.1.0", "name": "two", "type": "sbr", "prevResult": result, **keys}
        env = fault.env if fault else {}
        return self.host.plugin("sbr", verb, conf, netns="/run/netns/c1", ifname=name, env=env)

    def collect(self) -> None:
        keys: dict[str, Any] = {
            "cniVersion": "1.1.0",
            "name": "two",
            "type": "sbr",
            "cni.dev/valid-attachments": [],
        }
        self.host.plugin("sbr", "GC", keys, container_id="", ifname="").must()

    def state(self) -> list[str]:
        """List routes and rules with all that is shown of them, and the records.

        The kernel changes table "local" and the flags that follow the carrier at a later time of its own.
        """
        commands = (["route", "show", "table", "all"], ["rule"])
        shown = [
            line.replace(" linkdown", "")
            for family in ("-4", "-6")
            for command in commands
            for line in self.sandbox.run(["ip", "-d", family, *command]).splitlines()
            if "table local" not in line
        ]
        # Several routes by one link to one destination are shown in the order of their addition.
        return (
            sorted(shown)
            + self.host.run(["find", "/run/pycni/attachments", "-type", "f"], check=False).split()
        )

    def rules(self) -> dict[str, int]:
        shown = [each for family in ("-4", "-6") for each in self.sandbox.json(["ip", family, "-j", "rule"])]
        return {each["src"]: int(each["table"]) for each in shown if each["src"] != "all"}

    def list_faults(self, verb: str, action: str) -> list[Fault]:
        """Return the points of a call, each the first and the last time. The call is made for that."""
        met = [each.split(" ") for each in list_met(self.call(verb, fault=Fault(TELL, "")))]
        last = dict(met)
        return [Fault(action, point, int(number)) for point, number in met if number in {"1", last[point]}]


@pytest.fixture
def place(host: Host) -> Place:
    return Place(host)


@pytest.mark.parametrize("conf", CONFS.values(), ids=CONFS)
def test_nothing_is_left_when_only_sbr_is_removed(place: Place, conf: dict[str, Any]) -> None:
    before = place.state()
    place.call("ADD", **conf).must()
    place.call("CHECK", **conf).must()
    assert place.state() != before
    for _ in range(2):
        place.call("DEL", **conf).must()
        assert place.state() == before


def test_an_add_that_is_repeated_begins_anew(place: Place) -> None:
    before = place.state()
    place.call("ADD").must()
    once = place.state()
    place.call("ADD").must()
    assert place.state() == once
    # The list was edited meanwhile.
    place.call("ADD", table=500).must()
    assert place.rules() == {"10.1.0.2": 500, "fd01::2": 500}
    place.call("DEL").must()
    assert place.state() == before


def test_gc_restores_in_a_namespace_that_lives(place: Place) -> None:
    before = place.state()
    place.call("ADD").must()
    place.collect()
    assert place.state() == before


def test_parallel_adds_choose_different_tables(place: Place) -> None:
    before = place.state()
    with ThreadPoolExecutor(len(LINKS)) as pool:
        for answer in pool.map(lambda number: place.call("ADD", number), LINKS):
            answer.must()
        rules = place.rules()
        assert set(rules) == {
            f"{network}2" for each in LINKS for network in (f"10.{each}.0.", f"fd0{each}::")
        }
        assert sorted(rules.values()) == list(range(100, 100 + len(rules)))
        for answer in pool.map(lambda number: place.call("CHECK", number), LINKS):
            answer.must()
        for answer in pool.map(lambda number: place.call("DEL", number), LINKS):
            answer.must()
    assert place.state() == before


def test_routes_that_went_with_the_state_of_the_link_are_repaired(place: Place) -> None:
    place.call("ADD").must()
    after = place.state()
    place.sandbox.run(["ip", "route", "delete", "10.20.0.0/16", "table", "100"])
    place.sandbox.run(["ip", "-6", "route", "delete", "fd01::/64", "table", "101"])
    answer = place.call("CHECK")
    assert answer.code == 104
    text = f"{answer.msg} {answer.json['details']}"
    assert "Expected Route {Dst: 10.20.0.0/16, GW: 10.1.0.1} not found in table 100" in text
    assert "Expected Route {Dst: fd01::/64, GW: None} not found in table 101" in text
    place.call("PYCNI_REPAIR").must()
    place.call("CHECK").must()
    assert place.state() == after


def test_another_link_of_the_name_gets_no_routes(place: Place) -> None:
    place.call("ADD").must()
    place.sandbox.run(["ip", "link", "delete", "net1"])
    place.sandbox.run(["ip", "link", "add", "net1", "type", "veth", "peer", "name", "far1"])
    place.sandbox.run(["ip", "addr", "add", "10.1.0.2/24", "dev", "net1"])
    place.sandbox.run(["ip", "link", "set", "net1", "up"])
    place.call("DEL").must()
    shown = place.sandbox.json(["ip", "-j", "route", "show", "dev", "net1"])
    assert [each["dst"] for each in shown] == ["10.1.0.0/24"]
    assert place.rules() == {}


DAMAGE = {
    "no JSON": b"{",
    "another type": b'"index": "x"',
    "no route": b'"moved": ["zz", "00", "0218000005020001"]',
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_rules_go_although_the_record_was_damaged(place: Place, damage: bytes) -> None:
    place.call("ADD").must()

    def spoil() -> None:
        [path] = [each for each in Path("/run/pycni/attachments").iterdir() if each.is_file()]
        content = path.read_bytes()
        start = content.index(damage.partition(b":")[0]) if b":" in damage else 0
        end = content.index(b"]" if b"moved" in damage else b",", start) + (b"moved" in damage)
        path.write_bytes(content[:start] + damage + content[end:] if b":" in damage else damage)

    place.host.call(spoil)
    place.call("DEL").must()
    assert place.rules() == {}
    assert place.host.run(["find", "/run/pycni/attachments", "-type", "f"]) == ""


@pytest.fixture
def faulty_place(faulty_bindir: Path) -> Iterator[Place]:
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    with Host(faulty_bindir) as host:
        warm.set_up(host.place, workers=1)
        place = Place(host)
        # The first call creates what stays on the host.
        place.call("ADD").must()
        place.call("DEL").must()
        yield place


@pytest.mark.parametrize("cleanup", ["DEL", "GC"])
def test_killed_in_add_with_the_interface_there(faulty_place: Place, cleanup: str) -> None:
    place = faulty_place
    before = place.state()
    faults = place.list_faults("ADD", KILL)
    after = place.state()
    place.call("DEL").must()
    assert {"store.written", "netlink.changed", "lock.taken"} <= {each.point for each in faults}
    for number, fault in enumerate(faults):
        assert fault.was_met(place.call("ADD", fault=fault))
        if number % 2:
            # The runtime tries again: the routes before the first call count.
            place.call("ADD").must()
            assert place.state() == after, fault
        if cleanup == "DEL":
            place.call("DEL").must()
        else:
            place.collect()
        assert place.state() == before, fault


def test_killed_in_del_with_the_interface_there(faulty_place: Place) -> None:
    place = faulty_place
    before = place.state()
    place.call("ADD").must()
    faults = place.list_faults("DEL", KILL)
    assert place.state() == before
    for fault in faults:
        place.call("ADD").must()
        assert fault.was_met(place.call("DEL", fault=fault))
        place.call("DEL").must()
        assert place.state() == before, fault


def test_interrupted_in_add_with_the_interface_there(faulty_place: Place) -> None:
    """The call itself takes back what it has done."""
    place = faulty_place
    before = place.state()
    faults = [each for each in place.list_faults("ADD", TERM) if each.point != "answer.written"]
    place.call("DEL").must()
    for fault in faults:
        answer = place.call("ADD", fault=fault)
        assert (answer.code, fault.was_met(answer)) == (11, True)
        assert place.state() == before, fault
