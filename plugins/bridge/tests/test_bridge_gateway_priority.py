"""`gatewayPriority`: which of a container's networks has the default route, by real packets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from cni.testing import Answer, Host, Sandbox

VERSIONS = (4, 6)
FAR = {4: "198.51.100.7", 6: "2001:db8:cafe::7"}


class World:
    """A container with up to three networks; the host is the gateway of all, and has the far addresses."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.sandbox: Sandbox = host.sandbox("c1")
        self.results: dict[str, dict[str, Any]] = {}
        host.run(["ip", "address", "add", f"{FAR[4]}/32", "dev", "lo"])
        host.run(["ip", "address", "add", f"{FAR[6]}/128", "dev", "lo", "nodad"])

    def conf(self, name: str, plugin: str = "bridge", **keys: Any) -> dict[str, Any]:
        number = "abc".index(name)
        ranges = [[{"subnet": f"10.{30 + number}.0.0/24"}], [{"subnet": f"fd00:{30 + number}::/64"}]]
        routes = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
        return {
            "cniVersion": "1.1.0",
            "name": name,
            "type": plugin,
            "bridge": f"br{name}",
            "isGateway": True,
            "ipam": {"type": "host-local", "ranges": ranges, "routes": routes},
            **keys,
        }

    def call(self, verb: str, name: str, conf: dict[str, Any]) -> Answer:
        keys = {"prevResult": self.results[name]} if name in self.results and verb != "ADD" else {}
        return self.host.plugin(
            conf["type"], verb, conf | keys, netns=self.sandbox, container_id="c1", ifname=f"eth{name}"
        )

    def add(self, name: str, plugin: str = "bridge", **keys: Any) -> dict[str, Any]:
        conf = self.conf(name, plugin, **keys)
        answer = self.call("ADD", name, conf)
        answer.must()
        self.results[name] = answer.json
        return conf

    def network(self) -> dict[int, str]:
        """Return, for each IP version, the network whose address packets to a far address come from."""
        with self.host.serve(80):
            return {version: self._network(FAR[version]) for version in VERSIONS}

    def _network(self, far: str) -> str:
        address = self.sandbox.dial(far, 80).address
        return next(
            name
            for name, result in self.results.items()
            if address in {each["address"].partition("/")[0] for each in result["ips"]}
        )


def everywhere(name: str) -> dict[int, str]:
    return dict.fromkeys(VERSIONS, name)


@pytest.fixture
def world(host: Host) -> World:
    return World(host)


@pytest.mark.parametrize("order", ["abc", "cba", "bca"])
def test_the_highest_priority_has_the_default_route_in_any_order(world: World, order: str) -> None:
    priorities = {"a": -5, "b": 100, "c": 7}
    confs = {name: world.add(name, gatewayPriority=priorities[name]) for name in order}
    for best in ("b", "c", "a"):
        assert world.network() == everywhere(best)
        for name, conf in confs.items():
            world.call("CHECK", name, conf).must()
        world.call("DEL", best, confs.pop(best)).must()


@pytest.mark.parametrize(("priority", "best"), [(1, "b"), (-1, "a"), (0, "a")])
def test_a_network_without_the_key_has_priority_0(world: World, priority: int, best: str) -> None:
    first, second = world.add("a"), world.add("b", gatewayPriority=priority)
    assert world.network() == everywhere(best)
    world.call("CHECK", "a", first).must()
    world.call("CHECK", "b", second).must()
    other = {"a": "b", "b": "a"}[best]
    world.call("DEL", best, {"a": first, "b": second}[best]).must()
    assert world.network() == everywhere(other)
    world.call("CHECK", other, {"a": first, "b": second}[other]).must()


@pytest.mark.parametrize(("priority", "best"), [(1, "b"), (-1, "a"), (0, "b")])
def test_it_may_come_later_as_well(world: World, priority: int, best: str) -> None:
    second, first = world.add("b", gatewayPriority=priority), world.add("a")
    assert world.network() == everywhere(best)
    world.call("CHECK", "a", first).must()
    world.call("CHECK", "b", second).must()


def test_the_runtime_chooses_for_one_attachment(world: World) -> None:
    world.add("a", gatewayPriority=50)
    world.add("b", runtimeConfig={"gatewayPriority": 51}, args={"cni": {"gatewayPriority": 1}})
    assert world.network() == everywhere("b")
    world.add("c", gatewayPriority=3, args={"cni": {"gatewayPriority": 52}})
    assert world.network() == everywhere("c")
    assert [each["priority"] for each in world.results["c"]["routes"]] == [292, 292]


@pytest.mark.parametrize("plugin", ["ptp", "macvlan"])
def test_other_plugins_have_the_key(world: World, plugin: str) -> None:
    world.host.run(["ip", "link", "add", "up0", "type", "veth", "peer", "name", "gw0"])
    world.host.run(["ip", "address", "add", "10.31.0.1/24", "dev", "gw0"])
    world.host.run(["ip", "address", "add", "fd00:31::1/64", "dev", "gw0", "nodad"])
    for name in ("up0", "gw0"):
        world.host.run(["ip", "link", "set", name, "up"])
    if plugin == "ptp":
        world.host.run(["ip", "link", "delete", "up0"])
    first = world.add("a", gatewayPriority=1)
    second = world.add("b", plugin, master="up0", gatewayPriority=2)
    assert world.network() == everywhere("b")
    world.call("CHECK", "a", first).must()
    world.call("CHECK", "b", second).must()
    world.call("DEL", "b", second).must()
    assert world.network() == everywhere("a")


def test_a_default_gateway_and_one_that_ipam_ranks(world: World) -> None:
    ranges = world.conf("a")["ipam"]["ranges"]
    world.add("a", isDefaultGateway=True, ipam={"type": "host-local", "ranges": ranges}, gatewayPriority=2)
    routes = [{"dst": "0.0.0.0/0", "priority": 3}, {"dst": "::/0"}]
    ipam = world.conf("b")["ipam"] | {"routes": routes}
    world.add("b", ipam=ipam, gatewayPriority=1)
    # The metric of a route in the configuration of IPAM counts.
    assert world.network() == {4: "b", 6: "a"}


def test_check_and_repair_know_the_metric(world: World) -> None:
    conf = world.add("a", gatewayPriority=1)
    world.sandbox.run(["ip", "route", "delete", "default"])
    world.sandbox.run(["ip", "route", "add", "default", "via", "10.30.0.1", "metric", "2000"])
    assert world.call("CHECK", "a", conf).code == 104
    repaired = world.call("PYCNI_REPAIR", "a", conf)
    assert (len(repaired.json["repaired"]), repaired.json["failed"]) == (1, [])
    world.call("CHECK", "a", conf).must()


def test_an_add_that_fails_gives_the_routes_back(world: World) -> None:
    world.add("a")
    before = world.sandbox.run(["ip", "route"]) + world.sandbox.run(["ip", "-6", "route", "show", "default"])
    world.host.run(["ip", "link", "add", "brb", "type", "bridge"])
    world.host.run(["ip", "address", "add", "10.99.0.1/24", "dev", "brb"])
    assert world.call("ADD", "b", world.conf("b", gatewayPriority=9)).code == 105
    after = world.sandbox.run(["ip", "route"]) + world.sandbox.run(["ip", "-6", "route", "show", "default"])
    assert after == before


def test_without_the_key_routes_have_no_metric(world: World) -> None:
    world.add("a")
    world.add("b")
    shown = world.sandbox.json(["ip", "-j", "route", "show", "default"])
    assert [each.get("metric") for each in shown] == [None, None]


@pytest.mark.parametrize("value", [101, -101, "1", 1.5, True])
def test_wrong_priorities_are_refused(world: World, value: object) -> None:
    for keys in (
        {"gatewayPriority": value},
        {"runtimeConfig": {"gatewayPriority": value}},
        {"args": {"cni": {"gatewayPriority": value}}},
    ):
        answer = world.call("ADD", "a", world.conf("a", **keys))
        assert answer.code == 7
        assert "gatewayPriority" in answer.msg
