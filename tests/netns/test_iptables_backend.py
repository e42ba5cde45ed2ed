"""The iptables backend on a kernel: both variants, races with Go plugins, and what goes wrong."""

from __future__ import annotations

import fcntl
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

import pytest

from cni.errors import CniError
from cni.firewall import select
from cni.firewall.intents import FORWARD, MASQUERADE, Masquerade, Owner, PortForward, PortMapping
from cni.firewall.iptables.backend import Iptables
from cni.request import Attachment
from cni.testing import GO
from cni.testing.wired import Wired
from cni.undo import Undo
from tests.support import scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cni.testing import Host

VARIANTS = ("nft", "legacy")
TARGET, TARGET6 = ip_interface("10.22.0.2/16"), ip_interface("fd00:22::2/64")
TARGETS = (TARGET, TARGET6)
WEB = PortMapping("tcp", 8080, 80)
LINKS = """mkdir -p {folder}; for name in iptables ip6tables; do for part in '' -save -restore; do
ln -s /usr/sbin/$name-{variant}$part {folder}/$name$part; done; done"""

variants = pytest.mark.parametrize("variant", VARIANTS)


def owner(number: int = 1, network: str = "net1") -> Owner:
    return Owner(network, f"cid{number}", "eth0")


def forward(number: int = 1, **options: Any) -> PortForward:
    intent = PortForward(owner(number), (PortMapping("tcp", 8080 + number, 80),), TARGETS)
    return intent._replace(**options)


def masquerade(number: int = 1, network: str = "net1") -> Masquerade:
    return Masquerade(owner(number, network), TARGETS)


class Machine:
    """A host on which one variant of iptables is the only one."""

    def __init__(self, host: Host, variant: str, folder: str = "/run/bin") -> None:
        self.host = host
        self.variant = variant
        self.folder = folder
        host.run(["sh", "-c", LINKS.format(variant=variant, folder=folder)])

    def call(self, function: Callable[[Iptables], object], path: str = "") -> object:
        def run() -> object:
            os.environ["PATH"] = path or self.folder
            return function(Iptables())

        return self.host.call(run)

    def rules(self, program: str = "iptables") -> list[str]:
        lines = self.host.run([f"{program}-{self.variant}-save", "-t", "nat"]).splitlines()
        return [line for line in lines if line.startswith("-A")]


@pytest.fixture
def machine(host: Host, variant: str) -> Machine:
    return Machine(host, variant)


def add_all(backend: Iptables, number: int = 1) -> None:
    backend.apply(masquerade(number), Undo())
    backend.apply(forward(number), Undo())


def remove_all(backend: Iptables, number: int = 1) -> None:
    backend.remove(owner(number), MASQUERADE)
    backend.remove(owner(number), FORWARD)


def differences(backend: Iptables, number: int = 1) -> list[str]:
    return backend.differences(forward(number)) + backend.differences(masquerade(number))


def hide_programs(host: Host) -> None:
    host.run(["sh", "-c", "mkdir /run/empty; mount --bind /run/empty /usr/sbin"])


@contextmanager
def undone() -> Iterator[Undo]:
    """Yield an Undo and run it, as an ADD that fails at its end does."""
    with suppress(KeyError), Undo() as undo:
        yield undo
        raise KeyError


@variants
def test_add_and_remove_may_be_repeated(machine: Machine) -> None:
    machine.call(lambda backend: add_all(backend, 9))
    before = machine.host.snapshot()
    machine.call(add_all)
    with_rules = machine.host.snapshot()
    machine.call(add_all)
    assert with_rules.differences(machine.host.snapshot()) == []
    assert machine.call(differences) == []
    machine.call(remove_all)
    machine.call(remove_all)
    assert before.differences(machine.host.snapshot()) == []
    assert machine.call(lambda backend: bool(differences(backend))) is True


@variants
@pytest.mark.parametrize("others", [False, True])
def test_undo_takes_away_shared_chains_that_nobody_uses(machine: Machine, *, others: bool) -> None:
    if others:
        machine.call(add_all)
    before = machine.host.snapshot()

    def fail(backend: Iptables) -> None:
        with undone() as undo:
            backend.apply(masquerade(2), undo)
            backend.apply(forward(2), undo)

    machine.call(fail)
    assert before.differences(machine.host.snapshot()) == []


@variants
def test_undo_keeps_shared_chains_that_another_has_begun_to_use(machine: Machine) -> None:
    def fail(backend: Iptables) -> list[str]:
        with undone() as undo:
            backend.apply(forward(1), undo)
            backend.apply(forward(2), Undo())
        return backend.differences(forward(2))

    assert machine.call(fail) == []


@variants
def test_undo_restores_the_chain_of_another_link(machine: Machine) -> None:
    machine.call(add_all)
    before = machine.host.snapshot()

    def fail(backend: Iptables) -> None:
        moved = (ip_interface("10.22.0.7/16"), ip_interface("fd00:22::7/64"))
        with undone() as undo:
            backend.apply(Masquerade(owner(), moved), undo)
            backend.apply(forward(targets=moved, mappings=(PortMapping("udp", 53, 53),)), undo)

    machine.call(fail)
    assert before.differences(machine.host.snapshot()) == []


@variants
def test_two_links_of_a_container_share_the_masquerading_chain(machine: Machine) -> None:
    second = Masquerade(Owner("net1", "cid1", "eth1"), (ip_interface("10.23.0.2/24"),))

    def add(backend: Iptables) -> list[str]:
        backend.apply(masquerade(), Undo())
        backend.apply(second, Undo())
        return backend.differences(masquerade()) + backend.differences(second)

    assert machine.call(add) == []
    ends = [rule.split("-j ")[1] for rule in machine.rules() if rule.startswith("-A CNI-")]
    assert ends == ["ACCEPT", "ACCEPT", "MASQUERADE"]


@variants
def test_doubles_are_collapsed(machine: Machine) -> None:
    machine.call(add_all)
    once = machine.rules()
    for rule in [each for each in once if "HOSTPORT" in each.split(" -j ")[1] or "HOSTPORT-M" in each]:
        double = rule.replace("-A", "-I", 1).replace('"CNI portfwd', "'CNI portfwd")
        machine.host.run(["sh", "-c", f"iptables-{machine.variant} -t nat {_shell(double)}"])
    assert len(machine.rules()) > len(once)
    machine.call(lambda backend: add_all(backend, 2))
    shared = [rule for rule in machine.rules() if "CNI-HOSTPORT" in rule and "CNI-DN" not in rule]
    assert sorted(shared) == sorted(set(shared))


def _shell(rule: str) -> str:
    return rule.replace("'CNI", '"CNI')


@variants
def test_old_forms_of_go_are_removed(machine: Machine) -> None:
    machine.call(lambda backend: add_all(backend, 9))
    before = machine.host.snapshot()
    chain, old = "CNI-e8f6f419596f7f47b3468487", "CNI-SN-e8f6f419596f7f47b3468"
    commands = f"""-N {chain}
-A POSTROUTING -s 10.22.0.2/16 -j {chain}
-A {chain} -j MASQUERADE
-N CNI-HOSTPORT-SNAT
-N {old}
-A CNI-HOSTPORT-SNAT -m comment --comment old -j {old}
-A {old} -j MASQUERADE"""
    for command in commands.splitlines():
        machine.host.run([f"iptables-{machine.variant}", "-t", "nat", *command.split()])
    machine.call(remove_all)
    assert before.differences(machine.host.snapshot()) == [
        f"+ rules: host: iptables-{machine.variant}-save nat :CNI-HOSTPORT-SNAT -"
    ]


@variants
def test_only_families_in_use_are_touched(machine: Machine) -> None:
    def add(backend: Iptables) -> None:
        backend.apply(Masquerade(owner(), (TARGET,)), Undo())
        backend.apply(forward(targets=(TARGET,)), Undo())
        backend.remove(owner(), FORWARD)

    # Copies of the program, which knows by its name what it is, as the folder behind the links is hidden.
    multi = f"/usr/sbin/xtables-{machine.variant}-multi"
    machine.host.run(["sh", "-c", f"rm /run/bin/*; cp {multi} /run/bin/iptables-restore"])
    hide_programs(machine.host)
    machine.call(add)
    assert machine.call(lambda backend: backend.unusable_because()) == ""

    def add6(backend: Iptables) -> None:
        with pytest.raises(CniError, match="ip6tables is not installed: no ip6tables-restore on PATH"):
            backend.apply(forward(targets=(TARGET6,)), Undo())

    machine.call(add6)


@variants
def test_gc_removes_by_network_and_container(machine: Machine) -> None:
    machine.call(add_all)
    before = machine.host.snapshot()

    def collect(backend: Iptables) -> list[str]:
        backend.apply(masquerade(1, "net10"), Undo())
        add_all(backend, 2)
        add_all(backend, 3)
        removed = backend.collect("net1", {Attachment("cid1", "eth0")})
        backend.remove(owner(1, "net10"), MASQUERADE)
        return removed

    assert machine.call(collect) == ["cid2", "cid3"]
    assert before.differences(machine.host.snapshot()) == []


def test_a_held_lock_is_waited_for_within_bounds(host: Host) -> None:
    def add(backend: Iptables) -> None:
        backend.wait_s = 1
        with open("/run/xtables.lock", "w") as lock:  # noqa: PTH123 - held over the calls
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(CniError, match="xtables lock") as refusal:
                backend.apply(masquerade(), Undo())
            assert refusal.value.code == 11
            with pytest.raises(CniError, match="xtables lock") as refusal:
                backend.apply(forward(), Undo())
            assert refusal.value.code == 11

    Machine(host, "legacy").call(add)


@pytest.mark.parametrize("priority", [50, 100])
def test_native_rules_in_the_table_are_told_with_a_way_out(host: Host, priority: int) -> None:
    chain = f"POSTROUTING {{ type nat hook postrouting priority {priority}; }}"
    host.run(
        ["nft", "-f", "-"],
        f"""add table ip nat
add set ip nat hidden {{ type ipv4_addr; }}
add chain ip nat {chain}
add rule ip nat POSTROUTING ip saddr @hidden masquerade""",
    )

    def add(backend: Iptables) -> str:
        with pytest.raises(CniError) as refusal:
            backend.apply(forward(), Undo())
        return str(refusal.value)

    said = Machine(host, "nft").call(add)
    assert "is incompatible, use 'nft' tool" in str(said) or "chain POSTROUTING" in str(said)
    assert '"backend": "nftables"' in str(said)


def test_an_unknown_external_chain_is_named(host: Host) -> None:
    def add(backend: Iptables) -> str:
        with pytest.raises(CniError) as refusal:
            backend.apply(forward(external_set_mark_chain="KUBE-MARK-MASQ"), Undo())
        return str(refusal.value)

    assert "KUBE-MARK-MASQ" in str(Machine(host, "nft").call(add))


def test_iptables_comes_first_and_nftables_where_it_is_missing(host: Host) -> None:
    assert host.call(lambda: select.choose(None, "ipmasq").name) == "iptables"
    assert host.call(lambda: select.choose("nftables", "ipmasq").name) == "nftables"
    with pytest.raises(CniError, match='unknown ipmasq backend "foo"'):
        select.choose("foo", "ipmasq")
    host.run(["mkdir", "/run/sbin"])
    host.run(["sh", "-c", "ln -s $(realpath /usr/sbin/nft) /run/sbin/nft"])
    host.run(["sh", "-c", "mkdir /run/real; cp /usr/sbin/nft /run/real; mount --bind /run/real /usr/sbin"])
    assert host.call(lambda: select.choose("", "ipmasq").name) == "nftables"


@pytest.mark.interop
@scene.needs_go
def test_first_adds_of_both_suites_at_once_leave_shared_rules_once(host: Host) -> None:
    net = Wired(host)
    containers = [net.container(number) for number in range(1, 13)]

    def add(number: int) -> tuple[bool, bool]:
        is_ours = number % 2 == 0
        conf = {"backend": "iptables", **_ports(8000 + number)}
        bindir = None if is_ours else GO
        return is_ours, net.call(scene.PORTS, "ADD", containers[number], conf, bindir=bindir).ok

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(add, range(11)))
    assert all(worked for is_ours, worked in results if is_ours)
    # The Go plugin may have come last with a double; the next one of ours takes it away.
    assert net.call(scene.PORTS, "ADD", containers[11], {"backend": "iptables", **_ports(9000)}).ok
    for program in ("iptables", "ip6tables"):
        lines = host.run([f"{program}-save", "-t", "nat"]).splitlines()
        shared = [line for line in lines if "CNI-HOSTPORT" in line and "CNI-DN" not in line]
        assert sorted(shared) == sorted(set(shared))
        # Those that the Go plugin makes, and one for the gateway of the network.
        assert len([line for line in shared if line.startswith("-A")]) == 5 + 1


def _ports(port: int) -> dict[str, object]:
    return {"runtimeConfig": {"portMappings": [{"hostPort": port, "containerPort": 80, "protocol": "tcp"}]}}


@pytest.mark.parametrize(("before", "after"), [("nft", "legacy"), ("legacy", "nft")])
def test_rules_of_the_other_variant_are_removed(host: Host, before: str, after: str) -> None:
    """An administrator may switch the variant while containers run."""
    old, new = Machine(host, before), Machine(host, after, "/run/other")
    old.call(lambda backend: add_all(backend, 9))
    empty = host.snapshot()
    old.call(add_all)
    old.call(lambda backend: add_all(backend, 2))
    new.call(remove_all)
    new.call(lambda backend: backend.collect("net1", {Attachment("cid9", "eth0")}))
    assert empty.differences(host.snapshot()) == []


def test_del_needs_no_program_where_the_kernel_has_the_rules(host: Host) -> None:
    machine = Machine(host, "nft")
    machine.call(add_all)
    hide_programs(host)
    machine.call(remove_all, "/nowhere")
    host.run(["/bin/umount", "/usr/sbin"])
    assert not [rule for rule in machine.rules() if owner().container_id in rule]


def test_del_tells_when_legacy_rules_are_there_and_no_iptables_is(host: Host) -> None:
    machine = Machine(host, "legacy")
    machine.call(add_all)
    hide_programs(host)
    with pytest.raises(CniError, match="iptables-legacy is not installed"):
        machine.call(remove_all, "/nowhere")


def test_our_jumps_do_not_come_before_those_of_services(host: Host) -> None:
    for chain in ("PREROUTING", "OUTPUT", "POSTROUTING"):
        host.run(
            ["iptables", "-t", "nat", "-A", chain, "-m", "comment", "--comment", "other", "-j", "ACCEPT"]
        )
    machine = Machine(host, "nft")
    machine.call(add_all)
    others = {rule.split()[1]: "other" in rule for rule in reversed(machine.rules())}
    assert (others["PREROUTING"], others["OUTPUT"]) == (True, True)
    first = next(rule for rule in machine.rules() if rule.startswith("-A POSTROUTING"))
    assert first.endswith("-j CNI-HOSTPORT-MASQ")


SAYS = {
    "ip6tables-restore v1.8.9 (legacy): ip6tables-restore: unable to initialize table 'nat'\n\n"
    "Error occurred at line: 1": "ip6tables could not masquerade container cid1 on network net1: "
    "unable to initialize table 'nat': the kernel has no NAT for IPv6",
    "ip6tables-restore v1.8.9 (nf_tables): Could not fetch rule set generation id: Permission denied "
    "(you must be root)": "ip6tables could not masquerade container cid1 on network net1: "
    "Could not fetch rule set generation id: Permission denied (you must be root)",
}


@pytest.mark.parametrize("said", SAYS)
def test_an_error_text_of_iptables_is_passed_on(host: Host, said: str) -> None:
    """A program that says what another kernel would make it say stands in for it."""
    script = f"#!/bin/sh\ncat >&2 <<'END'\n{said}\nEND\nexit 3\n"
    host.run(["sh", "-c", "mkdir /run/fake; cat > /run/fake/ip6tables-restore; chmod +x /run/fake/*"], script)

    def add(backend: Iptables) -> str:
        with pytest.raises(CniError) as refusal:
            backend.apply(Masquerade(owner(), (TARGET6,)), Undo())
        return str(refusal.value)

    told = Machine(host, "nft").call(add, "/run/fake:/usr/bin:/bin")
    assert str(told).startswith(SAYS[said])
