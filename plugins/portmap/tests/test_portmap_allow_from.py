"""`allowFrom`: real packets from clients that are in the list, and from others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import GO
from cni.testing.wired import Container, Wired

if TYPE_CHECKING:
    from cni.testing import Answer, Host

LEGACY = "/run/legacy"
_LINK_LEGACY = f"""mkdir -p {LEGACY}; for name in iptables ip6tables; do for part in '' -save -restore; do
ln -s /usr/sbin/$name-legacy$part {LEGACY}/$name$part; done; done"""
backends = pytest.mark.parametrize("backend", ["iptables", "legacy", "nftables"])
two_backends = pytest.mark.parametrize("backend", ["iptables", "nftables"])
interop = pytest.mark.skipif(not (GO / "portmap").exists(), reason="the Go plugins are not installed")

# The addresses of a client outside: those of the fixture, and others that are added to it.
ALLOWED = {4: "192.0.2.77", 6: "2001:db8:ffff::77"}
OTHER = {4: "192.0.2.2", 6: "2001:db8:ffff::2"}
LISTS = {4: ["192.0.2.64/26", "198.51.100.1"], 6: ["2001:db8:ffff::70/124", "2001:db8::1"]}
# A refusal comes at once; silence is waited for in a few cases only.
PATIENCE_S = 5


class World:
    """A network wired by hand, a client outside with several addresses, and portmap with one backend."""

    def __init__(self, host: Host, backend: str) -> None:
        self.host = host
        self.net = Wired(host)
        self.client = host.outside.sandbox
        self.name = "nftables" if backend == "nftables" else "iptables"
        self.variant = "-legacy" if backend == "legacy" else ""
        self.env: dict[str, str] = {}
        if backend == "legacy":
            host.run(["sh", "-c", _LINK_LEGACY])
            self.env = {"PATH": f"{LEGACY}:/usr/sbin:/usr/bin:/sbin:/bin"}
        self.client.run(["ip", "address", "add", f"{ALLOWED[4]}/24", "dev", "eth0"])
        self.client.run(["ip", "address", "add", f"{ALLOWED[6]}/64", "dev", "eth0", "nodad"])

    def portmap(self, verb: str, container: Container, *mappings: dict[str, Any], **conf: Any) -> Answer:
        keys = {"backend": self.name, "runtimeConfig": {"portMappings": list(mappings)}, **conf}
        return self.net.call("portmap", verb, container, keys, env=self.env)

    def address(self, version: int) -> str:
        return self.host.outside.host_address if version == 4 else self.host.outside.host_address6

    def gets_in(self, version: int, source: str, port: int = 8080, protocol: str = "tcp") -> bool:
        """Return whether the client outside gets an answer. A port without a server refuses at once."""
        try:
            seen = self.client.dial(
                self.address(version), port, protocol, source=source, timeout_s=PATIENCE_S
            )
        except OSError:
            return False
        assert seen.address == source
        return True

    def rules(self) -> str:
        if self.name == "nftables":
            return self.host.run(["nft", "list", "ruleset"])
        return "".join(
            self.host.run([f"{program}{self.variant}-save", "-t", "nat"])
            for program in ("iptables", "ip6tables")
        )


def web(protocol: str = "tcp", port: int = 8080, **more: Any) -> dict[str, Any]:
    """Return a mapping of a port to port 80."""
    return {"hostPort": port, "containerPort": 80, "protocol": protocol, **more}


def restricted(protocol: str = "tcp", **more: Any) -> dict[str, Any]:
    """Return a mapping that only clients of the lists reach."""
    return web(protocol, allowFrom=[*LISTS[4], *LISTS[6]], **more)


@pytest.fixture
def world(host: Host, backend: str) -> World:
    return World(host, backend)


@backends
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_only_clients_of_the_list_reach_the_port(world: World, protocol: str) -> None:
    c1, c2 = world.net.container(1), world.net.container(2)
    world.portmap("ADD", c1, restricted(protocol)).must()
    with c1.sandbox.serve(80, protocol):
        for version in (4, 6):
            assert world.gets_in(version, ALLOWED[version], protocol=protocol)
            assert not world.gets_in(version, OTHER[version], protocol=protocol)
            # Another container of the network, and the container itself, are clients as all others.
            target = world.address(version)
            for sandbox in (c1.sandbox, c2.sandbox):
                assert not sandbox.reaches(target, 8080, protocol, timeout_s=PATIENCE_S)
            # The host is no client.
            assert world.host.reaches(target, 8080, protocol)
        assert world.host.reaches("127.0.0.1", 8080, protocol)
    world.portmap("CHECK", c1, restricted(protocol)).must()
    world.portmap("DEL", c1, restricted(protocol)).must()


@backends
def test_the_host_answers_all_others(world: World) -> None:
    """For a client that is not in the list, the port is as if it was not published."""
    c1 = world.net.container(1)
    world.portmap("ADD", c1, restricted()).must()
    with c1.sandbox.serve(80), world.host.serve(8080):
        seen = world.client.dial(world.address(4), 8080, source=OTHER[4])
        assert seen.address == OTHER[4]
    with world.host.serve(8080):
        assert not world.gets_in(4, ALLOWED[4])


@two_backends
def test_neighbours_in_the_list_reach_it_by_hairpin(world: World) -> None:
    c1, c2 = world.net.container(1), world.net.container(2)
    mapping = web(allowFrom=[f"{c1.address}/32", c1.address6, c2.address])
    world.portmap("ADD", c1, mapping).must()
    with c1.sandbox.serve(80):
        assert c1.sandbox.reaches(world.address(4), 8080)
        assert c1.sandbox.reaches(world.address(6), 8080)
        assert c2.sandbox.reaches(world.address(4), 8080)
        assert not c2.sandbox.reaches(world.address(6), 8080, timeout_s=PATIENCE_S)


@two_backends
def test_a_family_without_an_entry_is_closed_and_one_with_all_is_open(world: World) -> None:
    c1 = world.net.container(1)
    world.portmap("ADD", c1, web(allowFrom=["::/0", "fd00::/8"])).must()
    with c1.sandbox.serve(80):
        assert not world.gets_in(4, ALLOWED[4])
        assert world.gets_in(6, OTHER[6])
    world.portmap("CHECK", c1, web(allowFrom=["::/0", "fd00::/8"])).must()


@two_backends
def test_the_list_of_the_network_is_for_ports_without_one(world: World) -> None:
    c1 = world.net.container(1)
    mappings = [web(), web(port=8081, allowFrom=[OTHER[4]])]
    world.portmap("ADD", c1, *mappings, allowFrom=[ALLOWED[4]]).must()
    with c1.sandbox.serve(80):
        assert [world.gets_in(4, each) for each in (ALLOWED[4], OTHER[4])] == [True, False]
        assert [world.gets_in(4, each, 8081) for each in (ALLOWED[4], OTHER[4])] == [False, True]
    world.portmap("CHECK", c1, *mappings, allowFrom=[ALLOWED[4]]).must()


@backends
def test_a_second_add_replaces_the_list_whole(world: World) -> None:
    c1 = world.net.container(1)
    first, then = web(allowFrom=["192.0.2.0/24"]), web(allowFrom=["192.0.2.64/26", "10.0.0.0/8"])
    with c1.sandbox.serve(80):
        for mapping, expected in ((first, [True, True]), (then, [True, False]), (web(), [True, True])):
            world.portmap("ADD", c1, mapping).must()
            assert [world.gets_in(4, each) for each in (ALLOWED[4], OTHER[4])] == expected
            world.portmap("CHECK", c1, mapping).must()
    assert "192.0.2" not in world.rules()


@backends
def test_check_repair_del_and_gc_cover_the_list(world: World) -> None:
    c1 = world.net.container(1)
    before = world.host.snapshot()
    world.portmap("ADD", c1, restricted()).must()
    wider = web(allowFrom=["192.0.2.0/24", *LISTS[6]])
    assert world.portmap("CHECK", c1, wider).code == 104
    if world.name == "nftables":
        world.host.run(["nft", "flush", "set", "ip", "pycni", "clients"])
        world.host.run(["nft", "flush", "set", "ip6", "pycni", "restricted"])
        world.host.run(["nft", "flush", "chain", "ip", "pycni", "host_ports"])
    else:
        lines = world.rules().splitlines()
        lost = [each for each in lines if each.startswith("-A CNI-DN") and "-s 192.0.2.64" in each]
        program = f"iptables{world.variant}"
        assert len(lost) == 1
        world.host.run([program, "-t", "nat", "-D", *lost[0].split()[1:]])
    assert world.portmap("CHECK", c1, restricted()).code == 104
    repaired = world.portmap("PYCNI_REPAIR", c1, restricted())
    assert (len(repaired.json["repaired"]), repaired.json["failed"]) == (1, [])
    world.portmap("CHECK", c1, restricted()).must()
    with c1.sandbox.serve(80):
        for version in (4, 6):
            assert world.gets_in(version, ALLOWED[version])
            assert not world.gets_in(version, OTHER[version])
    gone: dict[str, Any] = {"prevResult": None, "cniVersion": "1.1.0", "cni.dev/valid-attachments": []}
    plan = world.portmap("PYCNI_GC_PLAN", c1, **gone)
    assert "198.51.100.1" in str(plan.json) or world.name == "iptables"
    world.portmap("GC", c1, **gone).must()
    left = [
        each for each in before.differences(world.host.snapshot()) if "192.0.2.64" in each or "8080" in each
    ]
    assert left == []


@two_backends
def test_a_port_of_one_address_has_its_own_list(world: World) -> None:
    """The port of the address comes first, and its refusal is not lifted by the port of all addresses."""
    c1 = world.net.container(1)
    mappings = [
        web(hostIP=world.address(4), allowFrom=[ALLOWED[4]]),
        {"hostPort": 8080, "containerPort": 81, "protocol": "tcp"},
    ]
    world.portmap("ADD", c1, *mappings).must()
    world.portmap("CHECK", c1, *mappings).must()
    with c1.sandbox.serve(80):
        assert world.gets_in(4, ALLOWED[4])
    with c1.sandbox.serve(81):
        assert not world.gets_in(4, OTHER[4])
        assert world.gets_in(6, OTHER[6])


@two_backends
def test_conditions_and_the_list_must_both_be_met(world: World) -> None:
    c1 = world.net.container(1)
    words = ["ip", "daddr", world.address(4)] if world.name == "nftables" else ["-d", world.address(4)]
    keys = {"conditionsV4": words}
    world.portmap("ADD", c1, restricted(), **keys).must()
    world.portmap("CHECK", c1, restricted(), **keys).must()
    with c1.sandbox.serve(80):
        assert [world.gets_in(4, each) for each in (ALLOWED[4], OTHER[4])] == [True, False]
        assert not world.client.reaches(world.net.gateway, 8080)
        assert world.host.reaches(world.address(4), 8080)


@two_backends
def test_two_networks_of_a_container_keep_the_list(world: World) -> None:
    """The port of the second network serves when the first one is gone, with the same list."""
    c1 = world.net.container(1)
    world.portmap("ADD", c1, restricted()).must()
    c1.sandbox.run(["ip", "address", "add", "10.22.0.200/16", "dev", "eth0"])
    c1.sandbox.run(["ip", "address", "add", "fd00:22::200/64", "dev", "eth0", "nodad"])
    ips = [
        {"address": "10.22.0.200/16", "gateway": world.net.gateway, "interface": 2},
        {"address": "fd00:22::200/64", "gateway": world.net.gateway6, "interface": 2},
    ]
    other = c1.prev_result | {"ips": ips}
    wide = web(allowFrom=["192.0.2.64/26", "192.0.2.0/25", *LISTS[6]])
    second = {"name": "net2", "prevResult": other}
    world.portmap("ADD", c1, restricted(), **second).must()
    world.portmap("CHECK", c1, restricted()).must()
    world.portmap("CHECK", c1, restricted(), **second).must()
    # Another list for the same port, which overlaps the first one.
    world.portmap("ADD", c1, wide, **second).must()
    world.portmap("CHECK", c1, wide, **second).must()
    with c1.sandbox.serve(80):
        assert [world.gets_in(4, each) for each in (ALLOWED[4], OTHER[4])] == [True, False]
    world.portmap("DEL", c1, restricted()).must()
    world.portmap("CHECK", c1, wide, **second).must()
    with c1.sandbox.serve(80):
        assert [world.gets_in(4, each) for each in (ALLOWED[4], OTHER[4])] == [True, True]
    world.portmap("DEL", c1, wide, **second).must()


@pytest.mark.parametrize("backend", ["nftables"])
def test_a_table_of_an_earlier_release_gets_the_rules(world: World) -> None:
    c1, c2 = world.net.container(1), world.net.container(2)
    world.portmap("ADD", c2, web(port=8081)).must()
    make_earlier_release(world.host)
    world.portmap("CHECK", c2, web(port=8081)).must()
    world.portmap("ADD", c1, restricted()).must()
    world.portmap("CHECK", c1, restricted()).must()
    with c1.sandbox.serve(80):
        for version in (4, 6):
            assert world.gets_in(version, ALLOWED[version])
            assert not world.gets_in(version, OTHER[version])


def make_earlier_release(host: Host) -> None:
    """Remove from the tables what releases without lists of clients did not make."""
    sets = ("restricted", "clients", "host_ip_restricted", "host_ip_clients", "not_masqueraded")
    for family in ("ip", "ip6"):
        lines = []
        for chain in ("host_ports", "postrouting"):
            listed = host.run(["nft", "-a", "list", "chain", family, "pycni", chain]).splitlines()
            handles = [line.split()[-1] for line in listed if any(f"@{each} " in line for each in sets)]
            lines += [f"delete rule {family} pycni {chain} handle {each}" for each in handles]
        assert len(lines) == 3
        lines += [f"delete set {family} pycni {each}" for each in sets]
        host.run(["nft", "-f", "-"], "\n".join(lines))


@interop
@pytest.mark.interop
@pytest.mark.parametrize("backend", ["iptables"])
def test_the_go_plugin_checks_and_removes_a_port_with_a_list(world: World) -> None:
    c1 = world.net.container(1)
    world.portmap("ADD", c1, restricted()).must()
    conf = {"runtimeConfig": {"portMappings": [restricted()]}}
    checked = world.net.call("portmap", "CHECK", c1, conf, bindir=GO)
    # Release 1.1.1 finds fault with IPv6 in what it has made itself.
    assert checked.ok or "could not check ipv6" in checked.msg
    world.net.call("portmap", "DEL", c1, conf, bindir=GO).must()
    assert "CNI-DN-" not in world.rules()


BAD = [
    ("10.1.2.3/8", "10.0.0.0/8"),
    ("10.0.0.0/33", "10.0.0.0/33"),
    ("example.org", "example.org"),
    ("::ffff:10.0.0.0/104", "IPv4"),
    ("fe80::1%eth0", "fe80::1%eth0"),
    ("", '""'),
]


@pytest.mark.parametrize("backend", ["nftables"])
def test_wrong_entries_are_named(world: World) -> None:
    c1 = world.net.container(1)
    for text, named in BAD:
        for answer in (
            world.portmap("ADD", c1, web(allowFrom=["10.0.0.0/8", text])),
            world.portmap("ADD", c1, web(), allowFrom=[text]),
        ):
            assert answer.code == 7
            assert f'entry "{text}" in allowFrom' in answer.msg
            assert named in answer.msg
    for answer in (
        world.portmap("ADD", c1, web(allowFrom=[])),
        world.portmap("ADD", c1, web(), allowFrom=[]),
    ):
        assert answer.code == 7
        assert "allowFrom is empty" in answer.msg
    assert world.portmap("ADD", c1, web(allowFrom="10.0.0.0/8")).code == 7
