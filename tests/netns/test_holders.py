"""Holders of host ports: only proof makes a holder dead, and one whose rules were removed holds nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import GO
from cni.testing.wired import Wired
from tests.netns.firewall_hosts import VARIANTS, equipped, plain
from tests.support import scene

if TYPE_CHECKING:
    from cni.testing import Answer, Host
    from cni.testing.wired import Container

pytestmark = pytest.mark.modes("warm")

BACKENDS = ("iptables", "nftables")
WEB = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
FREE, TAKEN = 0, 103

backends = pytest.mark.parametrize("backend", BACKENDS)


@pytest.fixture
def net(host: Host) -> Wired:
    return Wired(host)


def portmap(net: Wired, verb: str, container: Container, **options: Any) -> Answer:
    mapping = WEB | options.pop("mapping", {})
    netns = options.pop("netns", container.sandbox.path)
    conf = {
        "cniVersion": net.version,
        "name": net.name,
        "type": scene.PORTS,
        "prevResult": container.prev_result,
        "runtimeConfig": {"portMappings": [mapping]},
        **options.pop("conf", {}),
    }
    return net.host.plugin(
        scene.PORTS, verb, conf, netns=netns, container_id=container.container_id, **options
    )


def is_reached(net: Wired) -> bool:
    return net.host.outside.sandbox.reaches(net.host.outside.host_address, 8080, timeout_s=10)


def call_from(net: Wired, wrapper: list[str], container: Container, backend: str) -> int:
    """Call ADD for a container behind a program that restricts or moves the caller; give the error's code."""
    conf = {
        "cniVersion": net.version,
        "name": net.name,
        "type": scene.PORTS,
        "backend": backend,
        "prevResult": container.prev_result,
        "runtimeConfig": {"portMappings": [WEB]},
    }
    variables = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": container.container_id,
        "CNI_NETNS": container.sandbox.path,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(net.host.bindir),
        "PYCNI_WARM": "off",
    }
    given = [f"{name}={value}" for name, value in variables.items()]
    program = ["env", *given, *wrapper, str(net.host.bindir / scene.PORTS)]
    done = net.host.place.run(program, json.dumps(conf), check=False)
    return int(json.loads(done.stdout).get("code", 0))


@backends
def test_a_holder_whose_path_the_caller_may_not_look_at_keeps_its_port(net: Wired, backend: str) -> None:
    """Its namespace is that of another user's process; the caller has no CAP_SYS_PTRACE."""
    c1, c2 = net.container(1), net.container(2)
    # Another user's process: to look at its namespace takes the capability.
    lines = "setpriv --reuid 1000 --regid 1000 --clear-groups sleep 1200 >/dev/null 2>&1 & echo $!"
    pid = c1.sandbox.run(["sh", "-c", lines]).strip()
    try:
        conf = {"conf": {"backend": backend}}
        portmap(net, "ADD", c1, netns=f"/proc/{pid}/ns/net", **conf).must()
        without = ["setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace"]
        assert net.host.place.run([*without, "stat", "-L", f"/proc/{pid}/ns/net"], check=False).returncode
        assert call_from(net, without, c2, backend) == TAKEN
        with c1.sandbox.serve(80):
            assert is_reached(net)
    finally:
        net.host.run(["kill", pid])


@backends
def test_a_holder_in_a_mount_namespace_that_the_caller_does_not_see_keeps_its_port(
    net: Wired, backend: str
) -> None:
    """The caller sees an empty file at the holder's path, as below systemd's PrivateTmp=."""
    c1, c2 = net.container(1), net.container(2)
    portmap(net, "ADD", c1, conf={"backend": backend}).must()
    hide = 'umount /run/netns/c1; exec "$0"'
    wrapper = ["unshare", "-m", "--propagation", "private", "sh", "-c", hide]
    assert call_from(net, wrapper, c2, backend) == TAKEN
    with c1.sandbox.serve(80):
        assert is_reached(net)


@backends
def test_a_holder_without_a_host_end_is_dead_whoever_looks(net: Wired, backend: str) -> None:
    c1, c2 = net.container(1), net.container(2)
    portmap(net, "ADD", c1, conf={"backend": backend}).must()
    elsewhere = ["unshare", "-m", "--propagation", "private"]
    assert call_from(net, elsewhere, c2, backend) == TAKEN
    net.host.run(["ip", "link", "delete", c1.host_end])
    assert call_from(net, elsewhere, c2, backend) == FREE
    with c2.sandbox.serve(80):
        assert is_reached(net)


@backends
def test_a_deleted_bridge_and_a_path_of_another_namespace_prove_nothing(net: Wired, backend: str) -> None:
    c1, c2 = net.container(1), net.container(2)
    portmap(net, "ADD", c1, conf={"backend": backend}).must()
    net.host.run(["mount", "--bind", c2.sandbox.path, c1.sandbox.path])
    net.host.run(["ip", "link", "delete", net.bridge])
    assert portmap(net, "ADD", c2, conf={"backend": backend}).code == TAKEN


@backends
def test_a_record_of_the_first_release_is_judged_by_the_machines_own_view(net: Wired, backend: str) -> None:
    """A record without the mount namespace: from any but the machine's own it proves nothing."""
    c1, c2 = net.container(1), net.container(2)
    portmap(net, "ADD", c1, conf={"backend": backend}).must()
    [path] = net.host.run(["sh", "-c", "echo /run/pycni/hostports/by-owner/*"]).split()
    record = json.loads(net.host.run(["cat", path]))
    for key in ("view", "host", "links"):
        del record[key]
    net.host.run(["tee", path], json.dumps(record))
    c1.sandbox.delete()
    assert portmap(net, "ADD", c2, conf={"backend": backend}).code == TAKEN
    as_the_machine = ["unshare", "--pid", "--fork", "--mount-proc"]
    assert call_from(net, as_the_machine, c2, backend) == FREE


@pytest.mark.interop
@scene.needs_go
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_port_whose_rules_the_go_plugin_has_removed_is_free(net: Wired, variant: str) -> None:
    """Container, namespace and host end are there still: only the kernel knows that nothing is published."""
    c1, c2 = net.container(1), net.container(2)
    conf = {"conf": {"backend": "iptables"}}
    with equipped(net.host, plain(variant) | {"nft": "nft"}):
        portmap(net, "ADD", c1, **conf).must()
        assert portmap(net, "ADD", c2, **conf).code == TAKEN
        portmap(net, "DEL", c1, bindir=GO).must()
        portmap(net, "ADD", c2, **conf).must()
        assert portmap(net, "ADD", c1, **conf).code == TAKEN
        with c2.sandbox.serve(80):
            assert is_reached(net)


@backends
def test_a_port_is_not_free_because_a_firewall_was_flushed(net: Wired, backend: str) -> None:
    """Repair brings the rules back, so that the claim stays."""
    c1, c2 = net.container(1), net.container(2)
    portmap(net, "ADD", c1, conf={"backend": backend}).must()
    net.host.run(["nft", "flush", "ruleset"])
    assert portmap(net, "ADD", c2, conf={"backend": backend}).code == TAKEN
