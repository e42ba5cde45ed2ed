"""All verbs against real servers behind a bridge: traffic, routes, options, release, errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.errors import Code
from cni.state import attachments
from plugins.dhcp.tests.dhcp_host import KEY, SERVER, DhcpHost, dhcp_host, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.testing import Host


@pytest.fixture
def dhcp(host: Host) -> Iterator[DhcpHost]:
    """Yield a host with a running server."""
    with dhcp_host(host) as dhcp:
        yield dhcp


def test_an_address_by_which_traffic_flows_and_its_release(dhcp: DhcpHost) -> None:
    attached = dhcp.network.add("c1")
    assert attached.address.startswith("10.77.0.1")
    assert attached.answer.json["ips"][0]["gateway"] == SERVER
    assert attached.answer.json["routes"] == [{"dst": "0.0.0.0/0", "gw": SERVER}]
    with dhcp.server.serve(5000):
        assert attached.sandbox.dial(SERVER, 5000).address == attached.address
    assert f"{attached.address} " in dhcp.leased()
    assert dhcp.network.check(attached).must() == {}
    assert len(dhcp.helpers()) == 1
    for _ in range(2):
        dhcp.network.delete("c1")
    wait_for(lambda: attached.address not in dhcp.leased())


def test_the_same_container_gets_its_address_again(dhcp: DhcpHost) -> None:
    first = dhcp.network.add("c1")
    other = dhcp.network.add("c2")
    assert first.address != other.address
    # Its client identifier is the Go plugin's.
    assert b"\0c1/net1/eth0".hex(":") in dhcp.leased()
    first.sandbox.delete()
    dhcp.network.delete("c1")
    assert first.address in dhcp.leased()
    assert dhcp.network.add("c1").address == first.address


def test_routes_of_option_121_replace_the_router_and_have_the_metric(dhcp: DhcpHost) -> None:
    routes = "10.9.0.0/16,10.77.0.7,10.8.0.0/16,0.0.0.0"
    dhcp.serve(f"--dhcp-option=121,{routes}", "--dhcp-option=6,192.0.2.53", "--domain=example.net")
    dhcp.network.conf["ipam"] |= {"priority": 50}
    attached = dhcp.network.add("c1")
    assert attached.answer.json["routes"] == [
        {"dst": "10.8.0.0/16", "gw": "0.0.0.0", "priority": 50, "scope": 253},  # noqa: S104
        {"dst": "10.9.0.0/16", "gw": "10.77.0.7", "priority": 50},
    ]
    assert attached.answer.json["dns"] == {"nameservers": ["192.0.2.53"], "domain": "example.net"}
    shown = attached.sandbox.run(["ip", "route"])
    assert "10.9.0.0/16 via 10.77.0.7 dev eth0 metric 50" in shown
    assert "10.8.0.0/16 dev eth0 scope link metric 50" in shown
    assert "default" not in shown


def test_options_are_provided_and_requested(dhcp: DhcpHost) -> None:
    dhcp.serve("--dhcp-option=option:ntp-server,192.0.2.9", "--log-dhcp")
    provide = [{"option": "host-name", "fromArg": "NAME"}, {"option": "60", "value": "pycni"}]
    request = [{"option": "42", "skipDefault": True}]
    dhcp.network.conf["ipam"] |= {"provide": provide, "request": request}
    attached = dhcp.network.add("c1", args="IgnoreUnknown=1;NAME=web")
    # Dnsmasq sends a router only if it is asked for one.
    assert "gateway" not in attached.answer.json["ips"][0]
    assert "routes" not in attached.answer.json
    assert " web " in dhcp.leased()
    too_long = dhcp.network.call(
        "ADD", "c2", dhcp.host.sandbox("c2"), args=f"IgnoreUnknown=1;NAME={'x' * 256}"
    )
    assert too_long.code == Code.INVALID_ENVIRONMENT


def test_gc_releases_the_lease_of_what_is_no_longer_valid(dhcp: DhcpHost) -> None:
    attached, other = dhcp.network.add("c1"), dhcp.network.add("c2")
    keys = {"cni.dev/valid-attachments": [{"containerID": "c2", "ifname": "eth0"}]}
    dhcp.host.plugin("dhcp", "GC", dhcp.network.conf | keys).must()
    wait_for(lambda: attached.address not in dhcp.leased())
    assert other.address in dhcp.leased()
    assert dhcp.host.call(attachments.load, KEY) is None
    assert dhcp.network.check(other).must() == {}
    assert dhcp.network.check(attached).code == Code.MISMATCH


def test_without_a_server_the_error_comes_in_time_and_nothing_remains(dhcp: DhcpHost) -> None:
    dhcp.stop()
    dhcp.network.conf["ipam"] |= {"timeoutSeconds": 1}
    dhcp.host.sandbox("c1")
    before = dhcp.host.snapshot()
    answer = dhcp.network.call("ADD", "c1")
    assert answer.code == Code.TRY_AGAIN
    assert "no more tries: no DHCP server answered on eth0 within 1 s" in answer.msg
    assert "Start a DHCP server" in answer.json["details"]
    assert before.differences(dhcp.host.snapshot()) == []


def test_without_the_link_the_error_comes_at_once(dhcp: DhcpHost) -> None:
    answer = dhcp.host.plugin("dhcp", "ADD", dhcp.network.conf, netns=dhcp.host.sandbox("c1"))
    assert (answer.code, answer.msg) == (Code.KERNEL, 'failed to lookup "eth0": Link not found')


def test_busybox_is_a_server_too(dhcp: DhcpHost) -> None:
    """Udhcpd renews, and takes a release; its lease times are in seconds."""
    dhcp.stop()
    lines = ["start 10.77.0.20", "end 10.77.0.20", "interface eth0", "lease_file /run/udhcpd.leases"]
    lines += [
        "option subnet 255.255.255.0",
        f"option router {SERVER}",
        "option lease 600",
        "pidfile /run/udhcpd.pid",
    ]
    dhcp.host.run(["sh", "-c", "cat > /run/udhcpd.conf; touch /run/udhcpd.leases"], "\n".join(lines) + "\n")
    with dhcp.server.place.popen(["busybox", "udhcpd", "-f", "-a", "1", "/run/udhcpd.conf"]) as process:
        try:
            attached = dhcp.network.add("c1")
            assert attached.address.startswith("10.77.0.20")
            before = dhcp.record()
            assert before.expires_s is not None
            assert before.expires_s - before.renew_s == 300
            dhcp.age(renew_s=1)
            wait_for(lambda: dhcp.record().xid != before.xid)
            dhcp.network.delete("c1")
            # The address is free again for a client that asks for none.
            assert dhcp.network.add("c2").address == attached.address
        finally:
            process.kill()
