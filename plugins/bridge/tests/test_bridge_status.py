"""STATUS: each reason why an ADD could not work, or why running containers are cut off."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.network import Network
from tests.support.cold_scripts import without_start

if TYPE_CHECKING:
    from cni.testing import Host

FULL: dict[str, Any] = {"isDefaultGateway": True, "ipMasq": True, "macspoofchk": True}
SMALL = {"type": "host-local", "subnet": "10.1.0.0/30"}
WITHOUT_SBIN = "mkdir /run/empty; mount --bind /run/empty /usr/sbin"


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_status_is_well_before_and_after_an_add_and_leaves_nothing(host: Host, backend: str) -> None:
    net = Network(host, **FULL, ipMasqBackend=backend)
    for _ in range(2):
        before = host.snapshot(exact=True)
        net.status().must()
        assert before.differences(host.snapshot(exact=True)) == []
        if "c1" not in host.run(["ip", "netns"]):
            net.add("c1")


def test_every_reason_is_reported(host: Host) -> None:
    host.run(["sh", "-c", WITHOUT_SBIN])
    answer = Network(host, **FULL, ipMasqBackend="nftables", ipam={"type": "nowhere"}).status()
    assert answer.code == 50
    assert answer.msg == "the ipmasq backend nftables is not usable here"
    details = answer.json["details"]
    assert "nft is not installed" in details
    assert "could not set up the MAC spoof check" in details
    assert 'failed to find plugin "nowhere"' in details
    assert "pycni repair" not in details


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_a_backend_whose_rules_are_refused_is_no_backend(host: Host, backend: str) -> None:
    program = {"iptables": "iptables-restore", "nftables": "nft"}[backend]
    script = "#!/bin/sh\necho 'Error: not today' >&2\nexit 1\n"
    host.run(["cp", "/dev/stdin", f"/run/{program}"], script)
    host.run(["chmod", "755", f"/run/{program}"])
    paths = [f"/usr/sbin/{program}", *(["/usr/sbin/ip6tables-restore"] if backend == "iptables" else [])]
    for path in paths:
        host.run(["mount", "--bind", f"/run/{program}", host.run(["readlink", "-f", path]).strip()])
    answer = Network(host, isGateway=True, ipMasq=True, ipMasqBackend=backend).status()
    assert answer.code == 50
    assert answer.msg.startswith(f"the ipmasq backend {backend} ")
    assert "not today" in answer.json["details"]


def test_an_ipam_that_cannot_be_executed_is_reported(host: Host) -> None:
    host.run(["mkdir", "/run/bin"])
    host.run(["sh", "-c", f"cp {host.bindir}/* /run/bin; echo > /run/bin/odd; chmod 644 /run/bin/odd"])
    env = {"CNI_PATH": f"{host.bindir}:/run/bin"}
    answer = Network(host, ipam={"type": "odd"}).call("STATUS", "", netns="", env=env)
    assert answer.code == 50
    assert answer.msg == "could not run /run/bin/odd: Permission denied"


@pytest.mark.parametrize("is_strict", [False, True])
def test_a_full_pool_is_a_warning_unless_it_shall_fail(host: Host, *, is_strict: bool) -> None:
    net = Network(host, ipam=SMALL | {"statusFailsWhenFull": is_strict})
    net.add("c1")
    answer = net.status()
    text = "no IP addresses available in range set: 10.1.0.1-10.1.0.2"
    assert (answer.code, answer.msg) == ((50, text) if is_strict else (0, ""))
    assert (text in answer.stderr) is not is_strict


TRAFFIC = {
    "bridge gone": ("ip link del br0", "bridge br0 is gone: its 1 containers are cut off"),
    "bridge down": ("ip link set br0 down", "bridge br0 is down"),
    "port off": ("ip link set HOST nomaster", "links of containers are not ports of bridge br0: HOST"),
    "port down": ("ip link set HOST down", "links of containers are down: HOST"),
    "addresses": ("ip addr flush dev br0 scope global", "br0 has lost the gateway's addresses"),
    "forwarding": ("sysctl -w net.ipv4.ip_forward=0", "this host does not forward IPv4: sysctl"),
    "forwarding of IPv6": (
        "sysctl -w net.ipv6.conf.all.forwarding=0",
        "this host does not forward IPv6: sysctl",
    ),
}


@pytest.mark.parametrize(("damage", "told"), TRAFFIC.values(), ids=TRAFFIC)
def test_an_impairment_of_running_containers_is_code_51(host: Host, damage: str, told: str) -> None:
    net = Network(host, isDefaultGateway=True)
    one = net.add("c1")
    host.run(damage.replace("HOST", one.host_end).split())
    answer = net.status()
    assert answer.code == 51
    assert answer.msg.startswith(told.replace("HOST", one.host_end))
    assert "pycni repair" in answer.json["details"]


FLUSHES = {
    "iptables": ("iptables", "iptables -t nat -F"),
    "iptables, IPv6 alone": ("iptables", "ip6tables -t nat -F"),
    "nftables": ("nftables", "nft flush ruleset"),
    "nftables, rules alone": ("nftables", "nft flush table ip pycni"),
    "nftables, elements alone": ("nftables", "nft flush set ip pycni leaving-10.1.0.0/24"),
}


@pytest.mark.parametrize(("backend", "flush"), FLUSHES.values(), ids=FLUSHES)
def test_masquerading_that_is_gone_is_51(host: Host, backend: str, flush: str) -> None:
    net = Network(host, isDefaultGateway=True, ipMasq=True, ipMasqBackend=backend)
    net.add("c1")
    net.status().must()
    host.run(flush.split())
    answer = net.status()
    assert (answer.code, answer.msg) == (51, "masquerading is gone of: c1 eth0")


def test_nothing_is_cut_off_where_nothing_is_attached(host: Host) -> None:
    net = Network(host, **FULL)
    net.add("c1")
    net.delete("c1")
    host.run(["sh", "-c", "nft flush ruleset; sysctl -w net.ipv4.ip_forward=0; ip link set br0 down"])
    net.status().must()


def test_of_51_and_50_the_worse_is_the_code(host: Host) -> None:
    net = Network(host, isDefaultGateway=True)
    net.add("c1")
    host.run(["ip", "link", "set", "br0", "down"])
    answer = net.status(ipam={"type": "nowhere"})
    assert (answer.code, answer.msg) == (51, "bridge br0 is down")
    assert 'failed to find plugin "nowhere"' in answer.json["details"]


def test_containers_that_come_and_go_are_no_reason(host: Host) -> None:
    """A STATUS beside an ADD or a DEL sees things half made, which are no loss."""
    net = Network(host, **FULL, ipMasqBackend="nftables")
    host.sandbox("c1")
    answers = []
    program = without_start(host.bindir) / "bridge"
    for _ in range(6):
        conf = json.dumps(net.conf)
        churn = [
            f"CNI_COMMAND={verb} CNI_CONTAINERID=c1 CNI_NETNS=/run/netns/c1 CNI_IFNAME=eth0 "
            f"CNI_PATH={host.bindir} {program} < /run/conf > /dev/null"
            for verb in ("ADD", "DEL")
        ]
        host.run(["cp", "/dev/stdin", "/run/conf"], conf)
        process = host.place.popen(["sh", "-c", f"for i in 1 2 3; do {'; '.join(churn)}; done"])
        answers.append(net.status())
        process.communicate(timeout=120)
    assert [(each.code, each.msg) for each in answers] == [(0, "")] * 6
