"""Calls of `pycni` by hand: rights, names, misspelt keys, help."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.netns.attached_world import World
from tests.support import scene

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")

VERBS = [
    "add web c1",
    "check web c1",
    "del web c1",
    "gc web",
    "gc web --dry-run",
    "repair",
    "status web",
    "show",
    "ipam list web",
    "warm status",
    "warm start",
    "warm stop",
]
# Files stay readable: what is tested is the user, not the folder of the test.
NOBODY = (
    "setpriv --reuid 65534 --regid 65534 --clear-groups "
    "--inh-caps +dac_read_search --ambient-caps +dac_read_search"
)


@pytest.fixture
def world(host: Host, tmp_path: Path) -> World:
    return World(host, tmp_path)


def as_nobody(world: World, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    done = world.host.place.run([*NOBODY.split(), world.command, *arguments], env=env, check=False)
    assert "Traceback" not in done.stderr
    return done


def test_a_caller_that_is_not_root_is_refused(world: World) -> None:
    world.attach("c1")
    for verb in VERBS:
        name = re.sub(r" (web|--).*", "", verb)
        done = as_nobody(world, *verb.split())
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            f"pycni: pycni {name}: operation not permitted for user 65534 "
            f"(Run as root: sudo pycni {name} ...)\n"
        )
        told = json.loads(as_nobody(world, *verb.split(), "--json").stdout)
        assert told["details"].startswith("Run as root")


def test_verbs_that_only_read_the_configuration_need_no_root(world: World) -> None:
    for verb in ("networks", "version", "version web", "--version", "man", "completion bash", "--help"):
        done = as_nobody(world, *verb.split())
        assert (done.returncode, done.stderr) == (0, ""), verb


def test_the_root_of_a_user_namespace_is_root(host: Host, tmp_path: Path) -> None:
    world = World(host, tmp_path)
    world.configure("lo", {"type": scene.LOOPBACK})
    script = (
        "set -e; mount -t tmpfs tmpfs /var/lib/cni; mount -t tmpfs tmpfs /run; mkdir /run/netns; "
        "ip netns add c1; "
        f"{world.command} add lo c1; {world.command} check lo c1; {world.command} del lo c1"
    )
    spaces = "unshare --user --map-root-user --net --mount --propagation private sh -c"
    done = host.place.run([*spaces.split(), script], check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_file_that_may_not_be_read_is_named(world: World) -> None:
    world.host.run(["mkdir", "/run/closed"])
    done = as_nobody(world, "warm", "units", "--write", "/run/closed")
    assert done.returncode == 1
    assert "cannot write to stdout" not in done.stderr


def test_a_namespace_is_found_by_name(world: World) -> None:
    world.host.sandbox("c1")
    result = json.loads(world.ok("add", "web", "c1"))
    assert result["interfaces"][-1]["sandbox"] == "/run/netns/c1"
    world.ok("check", "web", "c1")
    world.ok("check", "web", "/run/netns/c1")
    world.ok("del", "web", "c1")
    assert [each for each in world.host.links() if each.startswith("veth")] == []


def test_del_by_name_works_when_the_namespace_is_gone(world: World) -> None:
    world.attach("c1")
    world.sandboxes["c1"].delete()
    world.ok("del", "web", "c1")
    assert json.loads(world.ok("show", "--json"))["networks"][0]["attachments"] == []


def test_a_path_stays_a_path(world: World) -> None:
    world.host.sandbox("c1")
    here = f"cd /run/netns && {world.command}"
    world.host.run(["sh", "-c", f"{here} add web ./c1 && {here} check web c1 && {here} del web c1"])
    # A relative path without a slash, which no name in /run/netns has, as for cnitool.
    world.host.run(
        ["sh", "-c", "mkdir /run/other; touch /run/other/odd; mount --bind /run/netns/c1 /run/other/odd"]
    )
    told = world.host.run(["sh", "-c", f"cd /run/other && {world.command} add web odd"])
    assert '"sandbox": "/run/other/odd"' in told


def test_an_unknown_namespace_is_reported_with_both_paths(world: World) -> None:
    for verb in ("add", "check"):
        done = world.run(verb, "web", "nope")
        assert (done.returncode, done.stdout) == (1, ""), verb
        assert done.stderr == (
            'pycni: there is no network namespace "nope" '
            "(Create it with ip netns add, or use a path; /run/netns/nope and /nope do not exist.)\n"
        )


MISSPELT = {
    "brige": "bridge",
    "isGatway": "isGateway",
    "ipMask": "ipMasq",
    "hairpin_mode": "hairpinMode",
    "capabilties": "capabilities",
}


def test_a_misspelt_key_is_a_warning(world: World) -> None:
    for key, near in MISSPELT.items():
        assert_misspelt_key_is_a_warning(world, key, near)


def assert_misspelt_key_is_a_warning(world: World, key: str, near: str) -> None:
    world.configure("web", world.bridge | {key: True}, version="0.4.0")
    told = f'unknown key "{key}" has no effect, did you mean "{near}"?'
    name = f"c-{key}"
    world.host.sandbox(name)
    done = world.run("add", "web", name)
    assert done.returncode == 0
    assert done.stderr == f'bridge: network "web": {told}\n'
    warning = f'pycni: warning: network "web": bridge: {told}\n'
    for verb in ("networks", "status web", "show"):
        done = world.run(*verb.split())
        assert (done.returncode, done.stderr) == (0, warning), verb
    for verb in ("networks", "show"):
        [network] = json.loads(world.ok(verb, "--json"))["networks"]
        assert network["warnings"] == [f"bridge: {told}"]
    # A runtime's call warns, too.
    conf = {**world.bridge, "cniVersion": "0.4.0", "name": "web", key: True}
    sandbox = world.host.sandbox(f"r-{key}")
    answer = world.host.plugin(scene.INTERFACE, "ADD", conf, netns=sandbox, container_id=f"r-{key}")
    assert answer.ok
    assert told in answer.stderr


def test_misspelt_keys_of_ipam_and_of_the_list_are_warnings(world: World) -> None:
    ipam = {
        "type": scene.IPAM,
        "ranges": [[{"subnet": "10.9.0.0/24", "rangestart": "10.9.0.9", "rangeEnt": ""}]],
    }
    bridge = world.bridge | {"ipam": ipam}
    document = {"cniVersion": "1.0.0", "name": "web", "disablecheck": False, "disableGc": False, "plugin": []}
    world.host.run(
        ["cp", "/dev/stdin", "/etc/cni/net.d/web.conflist"], json.dumps({**document, "plugins": [bridge]})
    )
    [network] = json.loads(world.ok("networks", "--json"))["networks"]
    assert network["warnings"] == [
        'unknown key "plugin" has no effect, did you mean "plugins"?',
        'host-local: unknown key "ipam.ranges.rangeEnt" has no effect, did you mean "rangeEnd"?',
    ]


# Keys of other projects, of the spec and of runtimes, as real lists have them.
FOREIGN_KEYS: dict[str, Any] = {
    "args": {"cni": {"ips": []}, "brige": 1},
    "runtimeConfig": {"mac": "02:00:00:00:00:01", "ips": [], "aliases": {"web": ["x"]}},
    "capabilities": {"portMappings": True, "mac": True},
    "dns": {"nameservers": ["10.9.0.1"]},
    "cni.dev/valid-attachments": [],
    "keyA": ["x"],
    "log_level": "info",
    "logFile": "/x",
    "kubernetes": {"kubeconfig": "/x"},
    "policy": {"type": "k8s"},
    "datastore_type": "kubernetes",
    "master": "eth0",
    "mode": "l2",
    "linkInContainer": False,
    "domainName": "dns.podman",
    "multiDomain": True,
    "aliases": {},
    "ingressPolicy": "same-bridge",
    "sysctl": {},
}


def test_keys_of_others_are_no_warnings(world: World) -> None:
    world.configure("web", world.bridge | FOREIGN_KEYS, {"type": scene.PORTS, **FOREIGN_KEYS})
    world.host.sandbox("c1")
    assert world.run("networks").stderr == ""
    assert "unknown key" not in world.run("add", "web", "c1").stderr


def test_two_networks_with_one_subnet_are_a_warning(world: World) -> None:
    other = world.bridge | {"bridge": "other0"}
    world.configure("other", other, version="0.4.0")
    for verb in ("networks", "show"):
        lines = world.run(verb).stderr.splitlines()
        assert lines == [
            f'pycni: warning: network "{one}": subnet 10.9.0.0/24 of bridge {one}0 overlaps 10.9.0.0/24 of '
            f'bridge {two}0 in network "{two}", give one of them another subnet'
            for one, two in (("other", "web"), ("web", "other"))
        ]
    for name in ("c1", "c2"):
        world.host.sandbox(name)
    assert 'in network "other"' in world.run("add", "web", "c1").stderr
    done = world.run("add", "other", "c2")
    assert done.returncode == 0
    assert 'in network "web"' in done.stderr
    assert "bridge: subnet 10.9.0.0/24 of other0 overlaps 10.9.0.0/24 of web0" in done.stderr
    assert "bridge: subnet fd09::/64 of other0 overlaps fd09::/64 of web0" in done.stderr


def test_an_add_of_a_runtime_warns_of_one_subnet_once_for_a_bridge(world: World) -> None:
    conf = {**world.bridge, "cniVersion": "0.4.0", "name": "web"}
    other = {**conf, "name": "other", "bridge": "other0"}
    told = []
    for number, each in enumerate((conf, conf, other, other)):
        sandbox = world.host.sandbox(f"c{number}")
        answer = world.host.plugin(scene.INTERFACE, "ADD", each, netns=sandbox, container_id=f"c{number}")
        assert answer.ok
        told.append("overlaps 10.9.0.0/24 of web0" in answer.stderr)
    assert told == [False, False, True, False]


def test_networks_with_subnets_of_their_own_are_no_warning(world: World) -> None:
    ipam = {"type": scene.IPAM, "ranges": [[{"subnet": "10.8.0.0/24"}], [{"subnet": "fd08::/64"}]]}
    world.configure("other", world.bridge | {"bridge": "other0", "ipam": ipam})
    world.host.outside  # noqa: B018 - a host with a default route
    world.host.sandbox("c1")
    assert world.run("networks").stderr == ""
    assert world.run("add", "other", "c1").stderr == ""


def test_repair_of_no_such_network_fails(world: World) -> None:
    done = world.run("repair", "nope")
    assert (done.returncode, done.stdout) == (1, "")
    assert 'no net configuration with name "nope" in /etc/cni/net.d (configured are: web)' in done.stderr
    assert world.ok("repair", "web") == "Nothing is attached.\n"


def test_a_group_without_a_verb_names_its_verbs(world: World) -> None:
    for group, verbs in (("ipam", "list"), ("warm", "status, start, stop, units")):
        done = world.run(group)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f'pycni: a verb is missing after "{group}": {verbs} (see pycni --help)\n'


def test_version_is_an_option_too(world: World) -> None:
    assert world.ok("--version") == world.ok("version")


def test_help_is_plain_text_in_a_pipe(world: World) -> None:
    for verb in ("", "add", "gc", "warm", "warm units", "ipam list"):
        told = world.ok(*verb.split(), "--help")
        assert told.isascii(), verb
        assert "<bool>" not in told
        assert "..." not in told.replace("COMMAND [ARGS]...", "")


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_repair_names_ports_and_not_rules(host: Host, tmp_path: Path, backend: str) -> None:
    world = World(host, tmp_path, backend)
    portmap = scene.ports(backend=backend)
    world.configure("web", world.bridge, portmap, version="0.4.0")
    world.attach("c1", (8080, "tcp"), (8081, "udp"))
    host.run(["sh", "-c", "iptables -t nat -F; ip6tables -t nat -F; nft flush ruleset"])
    lines = world.ok("repair", "--dry-run").splitlines()
    assert max(map(len, lines)) < 250
    told = "\n".join(lines)
    assert (
        "port 8080/tcp -> 10.9.0.2:80; port 8080/tcp -> [fd09::2]:80; port 8081/udp -> 10.9.0.2:80;" in told
    )
    assert "bridge: masquerading of 10.9.0.2: rules are missing" in told
    assert "-A " not in told


def test_show_names_pods_and_containers(world: World) -> None:
    for name, args in (
        ("c1", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-0;K8S_POD_INFRA_CONTAINER_ID=x"),
        ("c2", "IgnoreUnknown=1;K8S_POD_NAME=nice_lamarr"),
        ("c3", ""),
    ):
        world.host.sandbox(name)
        world.ok("add", "web", name, **({"CNI_ARGS": args} if args else {}))
    [network] = json.loads(world.ok("show", "--json"))["networks"]
    shown = {
        each["netns"][-2:]: (each["podNamespace"], each["podName"], each["containerName"])
        for each in network["attachments"]
    }
    assert shown == {"c1": ("shop", "cart-0", ""), "c2": ("", "", "nice_lamarr"), "c3": ("", "", "")}
    tree = world.ok("show")
    assert "pod shop/cart-0  cnitool-" in tree
    assert "nice_lamarr  cnitool-" in tree


def test_show_names_what_a_failed_add_left_and_what_to_do(host: Host, tmp_path: Path) -> None:
    world = World(host, tmp_path, "iptables")
    portmap = scene.ports()
    world.configure("web", world.bridge, portmap, {"type": "missing"}, version="0.4.0")
    host.sandbox("c1")
    ports = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
    assert world.run("add", "web", "c1", CAP_ARGS=json.dumps(ports)).returncode == 1
    veth = next(each for each in host.links() if each.startswith("veth"))
    [network] = json.loads(world.ok("show", "--json"))["networks"]
    [attached] = network["attachments"]
    assert attached["hostLink"]["name"] == veth
    assert {f"link {veth}", "lease 10.9.0.2", "host port 8080/tcp"} <= set(attached["remains"])
    assert any("iptables chain CNI-" in each for each in attached["remains"])
    assert attached["remedy"] == "pycni del web c1"
    done = world.run("show")
    tree = done.stdout
    assert 'failed to find plugin "missing"' in done.stderr
    assert f"remains: link {veth}" in tree
    assert "remedy: pycni del web c1" in tree
    # The remedy reports the missing plugin, and helps.
    assert world.run(*attached["remedy"].split()[1:]).returncode == 1
    [network] = json.loads(world.ok("show", "--json"))["networks"]
    assert network["attachments"] == []


def test_show_offers_gc_where_the_namespace_is_not_known(host: Host, tmp_path: Path) -> None:
    world = World(host, tmp_path)
    world.configure("web", world.bridge, {"type": "missing"}, version="0.4.0")
    host.sandbox("c1")
    world.run("add", "web", "c1")
    host.run(["ip", "netns", "delete", "c1"])
    [network] = json.loads(world.ok("show", "--json"))["networks"]
    [attached] = network["attachments"]
    assert attached["remedy"] == "pycni gc web --dead-only"
    assert world.run(*attached["remedy"].split()[1:]).returncode == 1
    [network] = json.loads(world.ok("show", "--json"))["networks"]
    assert network["attachments"] == []


def test_a_disabled_gc_or_check_says_that_it_does_nothing(world: World) -> None:
    world.attach("c1")
    document = {"cniVersion": "1.1.0", "name": "web", "disableGC": True, "disableCheck": True}
    world.host.run(
        ["cp", "/dev/stdin", "/etc/cni/net.d/web.conflist"],
        json.dumps({**document, "plugins": [world.bridge]}),
    )
    for verb, key in (
        ("gc web", "disableGC"),
        ("gc web --dry-run", "disableGC"),
        ("check web c1", "disableCheck"),
    ):
        done = world.run(*verb.split())
        assert done.returncode == 0
        assert f'nothing was done, because "{key}" is set in /etc/cni/net.d/web.conflist' in done.stderr
