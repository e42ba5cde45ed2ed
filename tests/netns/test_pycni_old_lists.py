"""`gc`, `status` and `repair` on networks older than 1.1.0, and chains of which a plugin is missing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import GO
from tests.netns.attached_world import BACKENDS, World
from tests.support import scene

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")

OLD = ("0.3.1", "0.4.0", "1.0.0")

# Debian's 87-podman-bridge.conflist as its package golang-github-containers-common has it.
PODMAN = {
    "cniVersion": "0.4.0",
    "name": "podman",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni-podman0",
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "routes": [{"dst": "0.0.0.0/0"}],
                "ranges": [[{"subnet": "10.88.0.0/16", "gateway": "10.88.0.1"}]],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "vendor-firewall"},
        {"type": "vendor-tuning"},
    ],
}
PORTS = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}

old_versions = pytest.mark.parametrize("version", OLD)


def old_world(host: Host, folder: Path, version: str, backend: str = "nftables", *more: Any) -> World:
    """Return a world whose network is of an older version, with one IPv4 range, which all versions know."""
    world = World(host, folder, backend)
    ranges = [[{"subnet": "10.9.0.0/24"}]]
    world.bridge |= {"ipam": {"type": "host-local", "ranges": ranges}}
    portmap = scene.ports(backend=backend)
    world.configure("web", world.bridge, portmap, *more, version=version)
    return world


def remaining(world: World) -> list[str]:
    """Return what remains of attachments: veth pairs, leases, cached results, claims, elements and chains."""
    host = world.host
    links = [each for each in host.links() if each.startswith("veth")]
    leases = host.run(["find", "/var/lib/cni", "-name", "10.*"]).split()
    results = host.run(["find", "/var/lib/cni/results", "-type", "f"], check=False).split()
    claims = host.run(["find", "/run/pycni/hostports", "-type", "f"], check=False).split()
    shared = ("HOSTPORT", "CNI-GW-", "CNI-FORWARD", "CNI-ADMIN")
    chains = [each for each in world.chains() if not any(word in each for word in shared)]
    claims = [each for each in claims if not each.endswith("lock")]
    return [*links, *leases, *results, *claims, *sorted(world.elements()), *sorted(chains)]


@old_versions
@pytest.mark.parametrize("backend", BACKENDS)
def test_gc_removes_what_no_result_is_cached_of(
    host: Host, tmp_path: Path, version: str, backend: str
) -> None:
    world = old_world(host, tmp_path, version, backend)
    world.attach("kept", (8081, "tcp"))
    kept = remaining(world)
    world.attach("lost", (8080, "tcp"))
    world.forget("lost")
    both = remaining(world)
    assert len(both) > len(kept)
    world.ok("gc", "web", "--dead-only")
    assert remaining(world) == both
    world.sandboxes["lost"].delete()
    done = world.run("gc", "web", "--dead-only")
    assert (done.returncode, done.stdout) == (0, "")
    assert remaining(world) == kept
    with world.sandboxes["kept"].serve(80):
        assert host.reaches("127.0.0.1", 8081, timeout_s=5)
    world.ok("gc", "web")
    assert remaining(world) == []


@old_versions
def test_status_asks_the_plugins(host: Host, tmp_path: Path, version: str) -> None:
    world = old_world(host, tmp_path, version)
    assert world.ok("status", "web") == ""
    host.run(["ip", "link", "add", "web0", "type", "veth", "peer", "name", "web1"])
    done = world.run("status", "web", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["code"]) == (1, 50)
    assert "web0" in told["msg"]


@old_versions
def test_status_fails_for_missing_plugins(host: Host, tmp_path: Path, version: str) -> None:
    world = old_world(
        host, tmp_path, version, "nftables", {"type": "vendor-firewall"}, {"type": "vendor-tuning"}
    )
    done = world.run("status", "web")
    assert done.returncode == 1
    for name in ("vendor-firewall", "vendor-tuning"):
        assert f'failed to find plugin "{name}"' in done.stderr
    world.configure("web", world.bridge | {"ipam": {"type": "whereabouts"}}, version=version)
    done = world.run("status", "web")
    assert done.returncode == 1
    assert 'failed to find plugin "whereabouts"' in done.stderr


@old_versions
@pytest.mark.parametrize(
    ("backend", "flush"), [("iptables", "iptables -t nat -F"), ("nftables", "nft flush ruleset")]
)
def test_a_dry_run_of_repair_sees_what_is_missing(
    host: Host, tmp_path: Path, version: str, backend: str, flush: str
) -> None:
    world = old_world(host, tmp_path, version, backend)
    world.attach("c1", (8080, "tcp"))
    assert world.ok("repair", "--dry-run").split()[-1] == "well"
    host.run(flush.split())
    before = host.snapshot(exact=True)
    [told] = json.loads(world.ok("repair", "--dry-run", "--json"))["attachments"]
    assert before.differences(host.snapshot(exact=True)) == []
    assert told["state"] == "differs"
    assert any(each.startswith("portmap: ") for each in told["problems"])
    assert world.ok("repair").splitlines()[0].endswith("repaired")
    assert world.ok("repair", "--dry-run").split()[-1] == "well"


def test_repair_looks_where_the_runtime_must_not_check(host: Host, tmp_path: Path) -> None:
    world = World(host, tmp_path)
    document = {"cniVersion": "1.0.0", "name": "web", "disableCheck": True, "plugins": [world.bridge]}
    host.run(["cp", "/dev/stdin", "/etc/cni/net.d/web.conflist"], json.dumps(document))
    world.attach("c1")
    host.run(["nft", "flush", "ruleset"])
    assert world.ok("repair", "--dry-run").splitlines()[0].endswith("differs")


@old_versions
def test_a_runtime_still_gets_the_answer_of_the_spec(host: Host, version: str) -> None:
    conf = {"cniVersion": version, "name": "web", "type": "loopback"}
    for verb in ("GC", "STATUS"):
        told = host.plugin("loopback", verb, conf)
        assert (told.code, told.msg) == (1, f"config version does not allow {verb}")


@pytest.mark.interop
@pytest.mark.skipif(not (GO / "tuning").exists(), reason="the Go plugins are not installed")
@pytest.mark.parametrize("suite", ["chained", "ipam"])
def test_plugins_of_another_suite_are_named(host: Host, tmp_path: Path, suite: str) -> None:
    world = old_world(host, tmp_path, "0.4.0", "nftables")
    # Under names that no plugin of ours has.
    for foreign, original in (("vendor-chained", "tuning"), ("vendor-ipam", "static")):
        (tmp_path / foreign).symlink_to(GO / original)
    path = f"{host.bindir}:{tmp_path}"
    if suite == "chained":
        foreign = "vendor-chained"
        world.configure("web", world.bridge, {"type": foreign}, version="0.4.0")
    else:
        foreign = "vendor-ipam"
        ipam = {"type": foreign, "addresses": [{"address": "10.9.0.7/24"}]}
        world.configure("web", world.bridge | {"ipam": ipam}, version="0.4.0")
    host.sandbox("c1")
    world.ok("add", "web", "/run/netns/c1", CNI_PATH=path)
    for verb in ("STATUS", "GC"):
        done = world.run(verb.lower(), "web", CNI_PATH=path)
        assert (done.returncode, done.stdout) == (0, "")
        told = f"plugin {foreign} is of another suite: {verb} came with cniVersion 1.1.0, this is 0.4.0"
        assert told in done.stderr
    assert remaining(world) == []


def failed_add(world: World) -> None:
    """Let an ADD of Debian's network fail, as it does where only this suite is installed."""
    world.host.run(["cp", "/dev/stdin", "/etc/cni/net.d/87-podman-bridge.conflist"], json.dumps(PODMAN))
    world.sandboxes["c1"] = world.host.sandbox("c1")
    done = world.run("add", "podman", "/run/netns/c1", CAP_ARGS=json.dumps(PORTS))
    assert done.returncode == 1
    assert 'failed to find plugin "vendor-firewall"' in done.stderr
    assert len(remaining(world)) > 4


@pytest.mark.parametrize("is_gone", [False, True], ids=["alive", "gone"])
@pytest.mark.parametrize("verb", ["del", "gc", "gc --dead-only"])
def test_a_chain_with_missing_plugins_is_cleaned_up(
    host: Host, tmp_path: Path, verb: str, *, is_gone: bool
) -> None:
    world = World(host, tmp_path, "iptables")
    failed_add(world)
    if is_gone:
        world.sandboxes["c1"].delete()
    options = verb.split()
    before = remaining(world)
    planned = world.run("gc", "podman", "--dry-run")
    assert planned.returncode == 1
    assert 'failed to find plugin "vendor-tuning"' in planned.stderr
    assert "8080/tcp" in planned.stdout
    done = world.run(options[0], "podman", "/run/netns/c1", *options[1:])
    assert done.returncode == 1
    for name in ("vendor-firewall", "vendor-tuning"):
        assert f'failed to find plugin "{name}"' in done.stderr
    assert "the other plugins have deleted their part" in done.stderr
    assert "remove it from /etc/cni/net.d/87-podman-bridge.conflist" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("pycni: ")
    # What an ADD that failed has left in a namespace in use looks like what another runtime has attached.
    is_kept = verb == "gc --dead-only" and not is_gone
    assert remaining(world) == (before if is_kept else [])


def test_add_with_undo_leaves_nothing_where_plugins_are_missing(host: Host, tmp_path: Path) -> None:
    world = World(host, tmp_path, "iptables")
    host.run(["cp", "/dev/stdin", "/etc/cni/net.d/87-podman-bridge.conflist"], json.dumps(PODMAN))
    host.sandbox("c1")
    done = world.run("add", "podman", "/run/netns/c1", "--undo", CAP_ARGS=json.dumps(PORTS))
    assert done.returncode == 1
    assert 'failed to find plugin "vendor-firewall"' in done.stderr
    assert 'failed to find plugin "vendor-tuning"' in done.stderr
    assert "the other plugins have deleted their part" in done.stderr
    assert remaining(world) == []


@pytest.mark.interop
@pytest.mark.skipif(not (GO / "firewall").exists(), reason="the Go plugins are not installed")
def test_del_is_repeated_when_the_plugin_is_back(host: Host, tmp_path: Path) -> None:
    world = World(host, tmp_path, "iptables")
    host.run(["cp", "/dev/stdin", "/etc/cni/net.d/87-podman-bridge.conflist"], json.dumps(PODMAN))
    host.sandbox("c1")
    others = tmp_path / "others"
    others.mkdir()
    for name in ("firewall", "tuning"):
        (others / f"vendor-{name}").symlink_to(GO / name)
    path = f"{host.bindir}:{others}"
    world.ok("add", "podman", "/run/netns/c1", CAP_ARGS=json.dumps(PORTS), CNI_PATH=path)
    done = world.run("del", "podman", "/run/netns/c1")
    assert done.returncode == 1
    # The result is kept: the rules of firewall are still there.
    assert [each for each in remaining(world) if "/results/" not in each] == []
    assert "10.88.0.2" in host.run(["iptables-save", "-t", "filter"])
    world.ok("del", "podman", "/run/netns/c1", CNI_PATH=path)
    assert remaining(world) == []
    assert "10.88.0.2" not in host.run(["iptables-save", "-t", "filter"])
