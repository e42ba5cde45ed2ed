"""A container puts a link of its own in the place of the device; none comes to the host as the device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.network import Network

if TYPE_CHECKING:
    from cni.testing import Host, Sandbox

MAC = "02:00:00:00:00:a0"


def network(host: Host) -> Network:
    host.sandbox("wire")
    host.sandbox("hidden")
    lines = f"link add hd0 address {MAC} type veth peer name far netns wire\n"
    host.run(["ip", "-batch", "-"], lines + "link set hd0 up\naddr add 198.51.100.7/24 dev hd0\n")
    net = Network(host, "host-device", device="hd0", ipam={})
    del net.conf["bridge"]
    return net


def replace(sandbox: Sandbox, peer: str = "") -> None:
    """Hide the device, and make a link that looks like it, with the same index."""
    index = sandbox.json(["ip", "-j", "link", "show", "eth0"])[0]["ifindex"]
    place = f" netns {peer}" if peer else ""
    sandbox.run(
        ["ip", "-batch", "-"],
        f"""\
link set eth0 netns hidden
link add eth0 index {index} address {MAC} type veth peer name mine index 900{place}
link set eth0 alias hd0
""",
    )


def test_a_link_of_the_containers_own_stays_there(host: Host) -> None:
    net = network(host)
    one = net.add("c1")
    replace(one.sandbox)
    for _ in range(2):
        # The second one has no record, as for an attachment of the Go plugin: then the alias counts.
        net.delete("c1")
    assert sorted(one.sandbox.links()) == ["eth0", "lo", "mine"]
    assert host.links() == ["lo"]


@pytest.mark.parametrize("verb", ["DEL", "GC"])
def test_a_link_with_a_hidden_peer_gets_neither_addresses_nor_traffic(host: Host, verb: str) -> None:
    net = network(host)
    one = net.add("c1")
    host.sandbox("peer")
    replace(one.sandbox, "peer")
    if verb == "GC":
        keys: dict[str, Any] = {"cni.dev/valid-attachments": []}
        host.plugin(net.plugin, "GC", net.conf | keys, container_id="", ifname="").must()
    else:
        net.delete("c1")
    [shown] = host.json(["ip", "-j", "link", "show", "hd0"])
    assert "UP" not in shown["flags"]
    assert host.addresses("hd0") == []


def test_the_device_itself_is_taken_wherever_the_container_has_put_it(host: Host) -> None:
    """The decoy has its name, its index and its alias."""
    net = network(host)
    one = net.add("c1")
    replace(one.sandbox)
    host.run(["ip", "-n", "hidden", "link", "set", "eth0", "name", "real0"])
    host.run(["ip", "-n", "hidden", "link", "set", "real0", "netns", "c1"])
    for _ in range(2):
        net.delete("c1")
    assert sorted(one.sandbox.links()) == ["eth0", "lo", "mine"]
    assert host.addresses("hd0") == ["198.51.100.7/24"]


def test_an_alias_of_the_containers_choice_brings_no_other_link_to_the_host(host: Host) -> None:
    """A DEL for an attachment that never was: the configured device is another one."""
    net = network(host)
    sandbox = host.sandbox("c1")
    sandbox.run(["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "mine"])
    sandbox.run(["ip", "link", "set", "eth0", "alias", "docker0"])
    net.delete("c1")
    assert sandbox.links() == ["lo", "mine", "eth0"]
