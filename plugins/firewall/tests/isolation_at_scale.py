"""Measure what isolation costs a packet and an ADD, beside 10 and beside 1,000 other isolated networks.

    python plugins/firewall/tests/isolation_at_scale.py

The chains of the Go plugin are written by this suite's backend iptables, whose rules are the same
(test_firewall_iptables.py). The other networks are names of links that do not exist: neither a look-up in a
set nor a rule that does not match depends on that.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from cni.firewall.intents import Owner
from cni.firewall.iptables.execute import Tool
from cni.firewall.nftables import elements
from cni.testing import Host, make_bindir
from cni.undo import Undo
from cni_firewall import attachment, iptables, uses
from cni_firewall.iptables_rules import FILTER, HOOK, isolation
from cni_firewall.nftables_layout import of_link
from cni_firewall.plan import CLOSED, GO_SAME_BRIDGE, KNOWN, Plan
from plugin_table import declared, packages
from tests.netns.chained_networks import ChainedNetwork

if TYPE_CHECKING:
    from cni.testing.wired import Container

COUNTS = (0, 10, 1000)
SECONDS = 1.0
ROUNDS = 5
CALLS = 20


def main() -> None:
    """Print a table."""
    say("networks  form            packets/s   of none   ADD ms   DEL ms")
    bare = 0.0
    for count in COUNTS:
        for form in ("nftables", "iptables"):
            packets, add_ms, del_ms = measure(form, count)
            bare = bare or packets
            name = "sets" if form == "nftables" else "Go's chains"
            say(f"{count:8}  {name:12} {packets:12,.0f} {packets / bare:9.2f} {add_ms:8.2f} {del_ms:8.2f}")


def measure(form: str, count: int) -> tuple[float, float, float]:
    """Return the packets per second of a container, and the milliseconds of ADD and DEL."""
    with tempfile.TemporaryDirectory() as folder:
        bindir = make_bindir(Path(folder), packages(declared()))
        with Host(bindir) as host:
            network = ChainedNetwork("firewall", host, backend=form, ingressPolicy="same-bridge")
            c1 = network.attach(1)
            host.call(fill, form, count)
            packets = median(send(host, c1) for _ in range(ROUNDS))
            add_ms, del_ms = host.call(call, form)
    return packets, add_ms, del_ms


def fill(form: str, count: int) -> None:
    """Isolate more networks, at once."""
    links = [f"other{number}" for number in range(count)]
    if form == "nftables":
        wanted = [each for link in links for policy in (KNOWN, CLOSED) for each in of_link(policy, link)]
        for start in range(0, len(wanted), 1000):
            elements.put((), Owner("", "", ""), wanted[start : start + 1000], lambda: None)
        return
    lines = [rule.as_command("-I") for link in links for rule in isolation(link, GO_SAME_BRIDGE)]
    for version in (4, 6):
        Tool(version, FILTER).apply("fill", lines)
    Tool(4, FILTER).list_chains([HOOK])


def send(host: Host, container: Container) -> float:
    """Send small packets to a peer outside for a while. Return how many of them arrive in a second."""
    outside = host.outside
    before = arrived(host)
    began = time.perf_counter()
    container.sandbox.call(flood, outside.address)
    return (arrived(host) - before) / (time.perf_counter() - began)


def flood(address: str) -> None:
    """Send packets, each of which passes the rules before the call returns."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect((address, 9))
        deadline = time.perf_counter() + SECONDS
        while time.perf_counter() < deadline:
            for _ in range(100):
                try:
                    sender.send(b"x" * 32)
                except ConnectionRefusedError:
                    # The peer's answer to an earlier one.
                    continue


def arrived(host: Host) -> int:
    """Return how many packets the peer outside has received."""
    shown = host.outside.sandbox.json(["ip", "-s", "-j", "link"])
    return sum(int(each["stats64"]["rx"]["packets"]) for each in shown if each["ifname"] != "lo")


def call(form: str) -> tuple[float, float]:
    """Return how long ADD and DEL of the first and only container of a network take."""
    adds, dels = [], []
    policy = CLOSED if form == "nftables" else GO_SAME_BRIDGE
    choice = attachment.Choice(form, "CNI-ADMIN")
    for number in range(CALLS):
        owner = Owner(f"new{number}", f"c{number}", "eth0")
        plan = Plan(owner, (ip_address(f"10.9.0.{number + 2}"),), f"new{number}", (), (KNOWN, policy))
        began = time.perf_counter()
        undo = Undo()
        attachment.apply(plan, choice, undo)
        undo.cancel()
        adds.append(time.perf_counter() - began)
        began = time.perf_counter()
        attachment.remove(plan, choice)
        dels.append(time.perf_counter() - began)
    assert not iptables.list_isolated() or form == "iptables"
    assert uses.list_names(KNOWN) != []
    return median(adds) * 1000, median(dels) * 1000


say = partial(print, file=sys.stdout, flush=True)

if __name__ == "__main__":
    assert os.geteuid() == 0, "run it as root"
    main()
