"""`pycni network create, ls, inspect, rm, prune`: lists come and go, and containers run on them."""

from __future__ import annotations

import json
import threading
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest

from tests.netns.attached_world import World
from tests.support import scene

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")

FOLDER = "/etc/cni/net.d"


@pytest.fixture
def world(host: Host, tmp_path: Path) -> World:
    """Return a host with the network "web" of another program, and the command."""
    return World(host, tmp_path)


def read_list(world: World, name: str) -> dict[str, Any]:
    """Return the list that `create` has written."""
    read: dict[str, Any] = json.loads(world.host.run(["cat", f"{FOLDER}/pycni-{name}.conflist"]))
    return read


def subnets(world: World, name: str) -> list[str]:
    """Return the subnets of a network, as `inspect` prints them."""
    [shown] = json.loads(world.ok("network", "inspect", name))
    return [each["Subnet"] for each in shown["IPAM"]["Config"]]


def settings(world: World, text: str) -> None:
    """Write the settings."""
    world.host.run(["mkdir", "-p", "/etc/cni/pycni"])
    world.host.run(["cp", "/dev/stdin", "/etc/cni/pycni/network.json"], text)


def refused(world: World, *arguments: str) -> str:
    """Run `pycni network`, which fails without writing a list. Return its line on stderr."""
    before = world.host.run(["ls", FOLDER])
    done = world.run("network", *arguments)
    assert done.returncode == 1, done.stdout
    assert world.host.run(["ls", FOLDER]) == before
    return done.stderr


def test_containers_run_on_a_network_until_it_is_removed(world: World) -> None:
    before = world.host.snapshot()
    assert world.ok("network", "create", "--ipv6", "--label", "team=a", "mine") == "mine\n"
    results = [world.attach(name, network="mine") for name in ("c1", "c2")]
    v4, v6 = (str(each["address"]).split("/")[0] for each in results[1]["ips"])
    for address in (v4, v6):
        world.sandboxes["c1"].run(["ping", "-c1", "-W5", address])
    [shown] = json.loads(world.ok("network", "inspect", "mine"))
    assert (shown["Driver"], shown["Labels"], shown["EnableIPv6"]) == ("bridge", {"team": "a"}, True)
    assert {each["IPv4Address"] for each in shown["Containers"].values()} == {
        result["ips"][0]["address"] for result in results
    }
    [bridge] = shown["Bridges"]
    assert bridge in world.host.links()
    line = refused(world, "rm", "mine")
    assert "network mine has attached containers: " in line
    for name in ("c1", "c2"):
        world.ok("del", "mine", name)
        world.sandboxes[name].delete()
    assert world.ok("network", "rm", "mine") == "mine\n"
    left = [each for each in before.differences(world.host.snapshot()) if "/run/pycni/" not in each]
    assert [each for each in left if "/var/lib/cni/networks/mine" not in each] == []


def test_subnets_are_the_first_that_nothing_uses(world: World) -> None:
    settings(world, '{"pools": [{"base": "10.7.0.0/16", "size": 24}, {"base": "fd07::/48", "size": 64}]}')
    world.host.run(["ip", "link", "add", "far0", "type", "bridge"])
    # The link is down: the address has no route.
    world.host.run(["ip", "addr", "add", "10.7.0.129/25", "dev", "far0"])
    world.host.run(["ip", "route", "add", "blackhole", "10.7.9.0/24"])
    world.host.run(["ip", "link", "set", "lo", "up"])
    world.host.run(["ip", "route", "add", "10.7.1.7/32", "dev", "lo"])
    world.configure("two", {**world.bridge, "ipam": {"type": scene.IPAM, "subnet": "10.7.2.0/24"}})
    world.host.run(["mkdir", "-p", "/var/lib/cni/networks/old"])
    world.host.run(["cp", "/dev/stdin", "/var/lib/cni/networks/old/10.7.3.5"], "lost\r\neth0")
    for name in ("a", "b"):
        world.ok("network", "create", "--ipv6", name)
    assert subnets(world, "a") == ["10.7.4.0/24", "fd07::/64"]
    assert subnets(world, "b") == ["10.7.5.0/24", "fd07:0:0:1::/64"]


def test_without_settings_the_pools_are_podmans(world: World) -> None:
    world.ok("network", "create", "--ipv6", "a")
    v4, v6 = subnets(world, "a")
    assert v4 == "10.89.0.0/24"
    assert ip_network(v6).subnet_of(ip_network("fd00::/8"))  # type: ignore[arg-type] # of one version
    assert ip_network(v6).prefixlen == 64


def test_many_at_once_never_share_a_subnet(world: World) -> None:
    names = [f"n{number}" for number in range(6)]
    threads = [threading.Thread(target=world.ok, args=("network", "create", name)) for name in names]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len({subnets(world, name)[0] for name in names}) == len(names)


def test_pools_are_exhausted(world: World) -> None:
    settings(world, '{"pools": [{"base": "10.7.0.0/24", "size": 24}]}')
    world.ok("network", "create", "a")
    assert "all subnets of the IPv4 pools are in use (Add a pool to " in refused(world, "create", "b")


WRONG_SETTINGS = {
    '{"pools": [{"base": "10.7.0.1/16", "size": 24}]}': "is no network",
    '{"pools": [{"base": "10.7.0.0/16", "size": 8}]}': '"size" of 10.7.0.0/16 must be a number, 16 to 30',
    '{"pools": [{"size": 8}]}': "'base' is missing",
    '{"pools": 5}': "could not read the pools",
    "{": "could not decode /etc/cni/pycni/network.json",
}


def test_wrong_settings_are_refused(world: World) -> None:
    for text, reason in WRONG_SETTINGS.items():
        settings(world, text)
        assert reason in refused(world, "create", "a")


def test_a_network_without_names(world: World) -> None:
    world.ok("network", "create", "--disable-dns", "--dns", "10.7.0.1", "a")
    plugins = read_list(world, "a")["plugins"]
    assert [each["dns"] for each in plugins if "dns" in each] == [{"nameservers": ["10.7.0.1"]}]
    assert not any("domainName" in each for each in plugins)


def test_every_option_reaches_the_list(world: World) -> None:
    world.ok(
        *("network", "create", "--subnet", "10.7.0.0/24", "--gateway", "10.7.0.9", "--ip-range"),
        *("10.7.0.128/25", "--subnet", "fd07::/64", "--internal", "--isolate", "--mtu", "1400"),
        *("--dns", "10.7.0.1,10.7.0.2", "--opt", "com.docker.network.bridge.name=far0", "a"),
    )
    written = read_list(world, "a")
    [interface] = [each for each in written["plugins"] if "ipam" in each]
    assert (interface["bridge"], interface["mtu"]) == ("far0", 1400)
    [names] = [each for each in written["plugins"] if "upstreams" in each]
    assert (names["upstreams"], names["internal"]) == (["10.7.0.1", "10.7.0.2"], True)
    assert "dns" not in interface
    assert interface["ipam"]["ranges"] == [
        [
            {
                "subnet": "10.7.0.0/24",
                "rangeStart": "10.7.0.128",
                "rangeEnd": "10.7.0.254",
                "gateway": "10.7.0.9",
            }
        ],
        [{"subnet": "fd07::/64"}],
    ]
    assert any(each.get("internal") and each.get("isolate") for each in written["plugins"])
    result = world.attach("c1", network="a")
    assert [each["address"] for each in result["ips"]] == ["10.7.0.128/24", "fd07::2/64"]
    assert result.get("routes", []) == []
    world.ok("check", "a", "c1")


MISTAKES = (
    (["create", "web"], "network with name web already exists"),
    (["create", "host"], 'a network cannot have the name "host"'),
    (["create", "../x"], 'a network cannot have the name "../x"'),
    (["create", "-d", "host", "a"], "no CNI network can be the host's own"),
    (["create", "-d", "overlay", "a"], 'no plugin has the driver "overlay" (Use one of: bridge,'),
    (["create", "-d", "macvlan", "a"], "a network of macvlan needs a subnet"),
    (["create", "-d", "none", "--subnet", "10.7.0.0/24", "a"], "a network of none has no subnets"),
    (["create", "--subnet", "10.9.0.128/25", "a"], 'is already used: 10.9.0.0/24 is of network "web"'),
    (["create", "--subnet", "10.7.0.1/24", "a"], "invalid value for --subnet: 10.7.0.1/24 is no network"),
    (["create", "--subnet", "10.7.0.0/24", "--gateway", "10.8.0.1", "a"], "10.8.0.1 is in no subnet"),
    (["create", "--subnet", "10.7.0.0/24,10.7.0.0/25", "a"], "10.7.0.0/24 and 10.7.0.0/25 overlap"),
    (["create", "--opt", "vlan=x", "a"], "invalid value for --opt"),
    (["create", "--opt", "vlan=9999", "a"], "invalid VLAN ID 9999"),
    (["create", "--opt", "nope=1", "a"], 'driver "bridge" has no option "nope" (Options are: com.docker'),
    (["create", "--dns", "x", "a"], "invalid value for --dns"),
    (["create", "--label", "=x", "a"], 'invalid value for --label: "=x"'),
    (["rm", "web"], "pycni did not create network web"),
    (["rm", "nope"], "network nope not found"),
    (["inspect", "nope"], "network nope not found"),
)


def test_mistakes_are_refused(world: World) -> None:
    for arguments, reason in MISTAKES:
        assert reason in refused(world, *arguments)


def test_a_parents_network_and_none(world: World) -> None:
    world.ok("network", "create", "-d", "none", "alone")
    world.ok(
        *("network", "create", "-d", "macvlan", "--subnet", "10.9.0.0/24", "--gateway", "10.9.0.9"),
        *("-o", "parent=up0", "-o", "macvlan_mode=private", "a"),
    )
    [entry] = read_list(world, "a")["plugins"]
    assert (entry["master"], entry["mode"]) == ("up0", "private")
    assert entry["ipam"]["routes"] == [{"dst": "0.0.0.0/0"}]
    assert world.attach("c1", network="alone")["ips"]
    world.ok("del", "alone", "c1")
    assert world.ok("network", "rm", "alone", "a") == "alone\na\n"


def test_the_list_is_filtered_and_formatted(world: World) -> None:
    for name, label in (("mine", "team=a"), ("other", "team=b")):
        world.ok("network", "create", "--label", label, name)
    world.attach("c1", network="mine")
    lines = world.ok("network", "ls").splitlines()
    assert lines[0].split() == ["NETWORK", "ID", "NAME", "DRIVER", "SCOPE"]
    assert [line.split()[1:] for line in lines[1:]] == [
        [name, "bridge", "local"] for name in ("mine", "other", "web")
    ]

    def names(*arguments: str) -> list[str]:
        return world.ok("network", "ls", "--format", "{{.Name}}", *arguments).split()

    assert names("-f", "label=team") == ["mine", "other"]
    assert names("-f", "label=team=b") == ["other"]
    assert names("-f", "name=e", "-f", "driver=bridge") == ["mine", "other", "web"]
    assert names("-f", "dangling=true") == ["other", "web"]
    assert names("-f", "dangling=false") == ["mine"]
    assert names("-f", "created-by=pycni") == ["mine", "other"]
    listed = json.loads(world.ok("network", "ls", "--format", "json"))
    assert [each["Name"] for each in listed] == ["mine", "other", "web"]
    short = world.ok("network", "ls", "-q").split()
    assert [each["ID"][:12] for each in listed] == short
    assert world.ok("network", "ls", "-q", "--no-trunc").split() == [each["ID"] for each in listed]
    assert world.ok("network", "inspect", "--format", "{{.Name}} {{.Driver}}", short[0]) == "mine bridge\n"
    done = world.run("network", "ls", "-f", "nope=1")
    assert (done.returncode, "write name, id, driver" in done.stderr) == (2, True)
    done = world.run("network", "ls", "--format", "{{.Nope}}")
    assert (done.returncode, 'there is no field "Nope"' in done.stderr) == (2, True)
    assert world.ok("complete", "--", "network", "rm", "mine", "ot").split()[0] == "other"


def test_only_unused_networks_of_pycni_are_pruned(world: World) -> None:
    for name, label in (("used", "x"), ("idle", "x"), ("kept", "y")):
        world.ok("network", "create", "--label", label, name)
    world.attach("c1", network="used")
    # Nobody answers the question.
    assert world.ok("network", "prune").endswith("Are you sure you want to continue? [y/N] ")
    assert len(world.ok("network", "ls", "-q").split()) == 4
    assert world.ok("network", "prune", "--force", "--filter", "label=x") == "Deleted Networks:\nidle\n"
    assert world.ok("network", "ls", "--format", "{{.Name}}").split() == ["kept", "used", "web"]


def test_force_removes_a_list_of_another_program(world: World) -> None:
    assert world.ok("network", "rm", "--force", "web", "nope") == "web\n"
    assert world.ok("network", "ls", "-q") == ""


def test_remains_of_a_container_that_is_gone_go_with_the_network(world: World) -> None:
    world.ok("network", "create", "mine")
    world.attach("c1", network="mine")
    world.sandboxes["c1"].delete()
    done = world.host.run(["sh", "-c", f"ls {FOLDER}"])
    assert "pycni-mine.conflist" in done
    world.ok("network", "rm", "mine")
    assert world.host.run(["ls", "/var/lib/cni/results"]) == ""
    assert not [each for each in world.host.links() if each.startswith("br-")]
