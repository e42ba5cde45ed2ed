"""`pycni gc` and its dry run on real attachments: what would go, why, and that just this goes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import GO
from tests.netns.attached_world import BACKENDS, World

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")

GONE = "its network namespace is gone"
UNKNOWN = "no such attachment in the cache"


backends = pytest.mark.parametrize("backend", BACKENDS)


def planned(world: World, *options: str) -> list[dict[str, str]]:
    told = json.loads(world.ok("gc", "web", "--dry-run", "--json", *options))
    assert told["cannotTell"] == []
    found = told["stale"]
    assert isinstance(found, list)
    return found


def named(plan: list[dict[str, str]], kind: str) -> set[str]:
    return {each["name"] for each in plan if each["kind"] == kind}


class State:
    """The objects that a GC may remove, by kind and name as the dry run lists them."""

    def __init__(self, world: World) -> None:
        self.links = set(world.host.links())
        self.elements = world.elements()
        self.chains = world.chains()
        listed = world.host.run(["find", "/run/pycni", "/var/lib/cni", "-type", "f"]).split()
        passing = (".lock", "/lock")
        listed = [each for each in listed if not each.startswith("/run/pycni/warm")]
        self.files = {each for each in listed if not each.endswith(passing) and "last_reserved" not in each}
        self.rules = world.rules()


def world_with_stale_things(host: Host, folder: Path, backend: str) -> World:
    """Make one that is well, one whose namespace is gone and one that is not in the cache either."""
    world = World(host, folder, backend, macspoofchk=True)
    world.attach("well", (8080, "tcp"))
    world.attach("dead", (8081, "udp"), (8082, "tcp"))
    world.attach("lost", (8083, "tcp"))
    world.sandboxes["dead"].delete()
    world.forget("lost")
    world.sandboxes["lost"].delete()
    return world


@backends
def test_a_dry_run_changes_nothing_and_tells_what_goes(host: Host, tmp_path: Path, backend: str) -> None:
    world = world_with_stale_things(host, tmp_path, backend)
    before = host.snapshot(exact=True)
    plan = planned(world, "--dead-only")
    assert before.differences(host.snapshot(exact=True)) == []
    old = State(world)
    world.ok("gc", "web", "--dead-only")
    new = State(world)
    assert named(plan, "link") == old.links - new.links
    assert named(plan, "nftables element") == old.elements - new.elements
    chains = {f"{each['kind']} {each['name']}" for each in plan if each["kind"].endswith("tables chain")}
    spoof = {each for each in chains if each.startswith("nftables")}
    assert chains - spoof == old.chains - new.chains
    # Both containers' spoof checks, of which each has two chains.
    assert len(spoof) == 2
    files = named(plan, "lease") | named(plan, "file") | named(plan, "cached result")
    ledger = {each for each in old.files - new.files if each.startswith("/run/pycni/hostports/")}
    assert files == old.files - new.files - ledger
    ports = {name.replace("/", "-").join(("", "")) for name in named(plan, "host port")}
    assert {f"{each.split('-')[1]}-{each.split('-')[0]}" for each in ports} == {
        each.removeprefix("/run/pycni/hostports/") for each in ledger if "by-owner" not in each
    }
    assert planned(world, "--dead-only") == []
    assert world.check("well")[0] == 0
    with world.sandboxes["well"].serve(80):
        assert host.reaches("127.0.0.1", 8080, timeout_s=5)


@backends
def test_each_thing_has_its_owner_and_a_reason(host: Host, tmp_path: Path, backend: str) -> None:
    world = world_with_stale_things(host, tmp_path, backend)
    ids = {each: host.place.call(_container_id, f"/run/netns/{each}") for each in ("dead", "lost", "well")}
    plan = planned(world, "--dead-only")
    assert {each["reason"] for each in plan if each.get("containerID") == ids["dead"]} == {GONE}
    assert {each["reason"] for each in plan if each.get("containerID") == ids["lost"]} == {UNKNOWN}
    assert all(each.get("containerID") != ids["well"] for each in plan)
    ports = [each for each in plan if each["kind"] == "host port"]
    assert {(each["name"], each["containerID"], each["ifname"], each["network"]) for each in ports} == {
        ("8081/udp", ids["dead"], "eth0", "web"),
        ("8082/tcp", ids["dead"], "eth0", "web"),
        ("8083/tcp", ids["lost"], "eth0", "web"),
    }
    # Without the option gc removes all attachments, those alive too.
    reasons = {each["reason"] for each in planned(world) if each.get("containerID") == ids["well"]}
    assert reasons == {"gc removes every attachment"}


def _container_id(path: str) -> str:
    from cni.cli.settings import container_id

    return container_id(path)


def test_the_table_is_for_people(host: Host, tmp_path: Path) -> None:
    world = World(host, tmp_path)
    assert world.ok("gc", "web", "--dry-run") == "Network web: nothing to collect.\n"
    world.attach("c1")
    world.sandboxes["c1"].delete()
    lines = world.ok("gc", "web", "--dry-run").splitlines()
    assert lines[0].split() == ["WHAT", "NAME", "CONTAINER", "IFNAME", "WHY"]
    assert any(line.split()[:2] == ["lease", "/var/lib/cni/networks/web/10.9.0.2"] for line in lines)
    assert all(GONE in line or "nothing is left" in line for line in lines[1:])


@backends
def test_a_network_older_than_gc_plans_the_same(host: Host, tmp_path: Path, backend: str) -> None:
    world = World(host, tmp_path, backend)
    portmap = {"type": "portmap", "backend": backend, "capabilities": {"portMappings": True}}
    world.configure("web", world.bridge, portmap, version="1.0.0")
    world.attach("c1", (8080, "tcp"))
    world.attach("lost")
    world.forget("lost")
    old = State(world)
    plan = planned(world)
    world.ok("gc", "web")
    new = State(world)
    assert len(named(plan, "lease")) == 4
    assert named(plan, "lease") == {each for each in old.files - new.files if "/networks/" in each}
    # These have no owner, and go with their sets.
    ownerless = (" records ", " gateway-")
    gone = {each for each in old.elements - new.elements if not any(word in each for word in ownerless)}
    assert named(plan, "nftables element") == gone
    assert {each["kind"] for each in plan} >= {"cached result", "lease", "host port", "link"}


@pytest.mark.interop
@pytest.mark.skipif(not (GO / "portmap").exists(), reason="the Go plugins are not installed")
def test_what_the_go_plugins_left_goes(host: Host, tmp_path: Path) -> None:
    world = World(host, tmp_path, "iptables")
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    go = {key: value for key, value in world.bridge.items() if key != "ipMasqBackend"}
    world.configure("web", go, portmap, version="1.0.0")
    kept = world.attach("kept", (8080, "tcp"), bindir=GO)
    world.attach("lost", (8081, "udp"), bindir=GO)
    # Older releases of theirs make other rules with nftables; the comment tells whose they are.
    tag = host.place.call(_tag, "web", "gone")
    host.run(["nft", "-f", "-"], GO_MASQUERADE.replace("TAG", tag))
    world.sandboxes["lost"].delete()
    world.forget("lost")
    world.configure("web", world.bridge, portmap | {"backend": "iptables"})
    old = State(world)
    plan = planned(world, "--dead-only")
    world.ok("gc", "web", "--dead-only")
    new = State(world)
    found = {f"{each['kind']} {each['name']}" for each in plan if each["kind"].endswith("tables chain")}
    assert found == old.chains - new.chains
    # A chain for masquerading and one for ports, of each family.
    assert len(found) == 4
    assert {each["kind"] for each in plan} >= {"nftables rule", "lease"}
    assert "10.9.0.77" not in host.run(["nft", "list", "ruleset"])
    assert named(plan, "lease") == {each for each in old.files - new.files if "/networks/" in each}
    address = kept["ips"][0]["address"].split("/")[0]
    assert f"/var/lib/cni/networks/web/{address}" in new.files
    with world.sandboxes["kept"].serve(80):
        assert host.reaches("127.0.0.1", 8080, timeout_s=10)


GO_MASQUERADE = """
table inet cni_plugins_masquerade {
    chain masq_checks {
        ip saddr 10.9.0.77 ip daddr != 10.9.0.0/24 masquerade comment "TAG, net: web, if: eth0, id: gone"
    }
}
"""


def _tag(network: str, container_id: str) -> str:
    from cni.firewall import owners
    from cni.firewall.intents import Owner

    return owners.tag(Owner(network, container_id, "eth0"))


def test_plugins_that_cannot_tell_are_named(host: Host, tmp_path: Path) -> None:
    from cni.testing.scripted import ScriptedPlugins

    world = World(host, tmp_path)
    refusal = 'print(json.dumps({"code": 4, "msg": "unknown CNI_COMMAND: " + verb})); sys.exit(1)'
    (tmp_path / "foreign").mkdir()
    plugins = ScriptedPlugins(tmp_path / "foreign")
    plugins.write("other", refusal)
    world.configure("web", {"type": "other"})
    told: dict[str, Any] = json.loads(
        world.ok("gc", "web", "--dry-run", "--json", CNI_PATH=str(plugins.folder))
    )
    assert told == {"network": "web", "stale": [], "cannotTell": ["other"]}
    assert plugins.order == ["PYCNI_GC_PLAN other"]


@pytest.mark.needs_kernel("vlan_filtering")
def test_the_gateway_of_a_vlan_goes_with_its_last_port(host: Host, tmp_path: Path) -> None:
    world = World(host, tmp_path, vlan=5)
    world.attach("c1")
    world.attach("c2")
    world.sandboxes["c1"].delete()
    world.ok("gc", "web", "--dead-only")
    assert "web0.5" in host.links()
    with world.sandboxes["c2"].serve(80):
        assert host.reaches("10.9.0.3", 80, timeout_s=5)
    world.sandboxes["c2"].delete()
    plan = planned(world)
    assert {"kind": "VLAN gateway", "name": "web0.5", "network": "web"} | {
        "reason": "bridge web0 has no other port in VLAN 5"
    } in plan
    world.ok("gc", "web")
    assert [each for each in host.links() if each.startswith(("web0.", "veth"))] == []
    assert "web0" in host.links()
    world.attach("c3")
    with world.sandboxes["c3"].serve(80):
        assert host.reaches(world.sandboxes["c3"].addresses("eth0")[0].split("/")[0], 80, timeout_s=5)


def test_one_error_keeps_nothing_else_from_going(host: Host, tmp_path: Path) -> None:
    world = World(host, tmp_path, "nftables")
    world.attach("c1", (8080, "tcp"))
    world.forget("c1")
    # A lock that is no file: leases cannot be removed.
    host.run(["rm", "/var/lib/cni/networks/web/lock"])
    host.run(["mkdir", "/var/lib/cni/networks/web/lock"])
    done = world.run("gc", "web", "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 1
    assert "/var/lib/cni/networks/web/lock" in told["msg"]
    assert [each for each in host.links() if each.startswith("veth")] == []
    assert world.elements() == set()
    assert host.run(["find", "/run/pycni/hostports", "-name", "tcp-*"]) == ""
