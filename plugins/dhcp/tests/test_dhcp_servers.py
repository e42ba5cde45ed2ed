"""Servers refuse, disappear, come back as others and sit behind a relay; and the messages that we send."""

from __future__ import annotations

import os
import signal
import socket
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni.errors import Code
from cni.kernel.netns import open_netns
from cni.service import control
from cni.state import attachments
from cni_dhcp import lease as leases
from cni_dhcp import packets, records
from cni_dhcp.packets import MalformedError, Message
from tests.dhcp_host import KEY, LEASES, SERVER, WITHIN_S, DhcpHost, dhcp, wait_for

if TYPE_CHECKING:
    from cni.testing import Sandbox
    from cni.testing.network import Attached

__all__ = ["dhcp"]

pytestmark = pytest.mark.modes("warm")

SECOND = "10.77.0.2"


def second_server(dhcp: DhcpHost) -> Sandbox:
    """Return a namespace on the segment with the address of a second server."""
    second = dhcp.host.sandbox("second")
    dhcp.host.run(["ip", "link", "add", "tosrv2", "type", "veth", "peer", "name", "eth0", "netns", "second"])
    dhcp.host.run(["ip", "link", "set", "tosrv2", "master", "br0", "up"])
    second.run(["ip", "addr", "add", f"{SECOND}/24", "dev", "eth0"])
    second.run(["ip", "link", "set", "eth0", "up"])
    return second


def is_up(attached: Attached) -> bool:
    """Return whether the container's link is switched on."""
    return ",UP" in attached.sandbox.run(["ip", "link", "show", "eth0"]).split(">")[0]


def check(dhcp: DhcpHost, attached: Attached) -> tuple[int, str]:
    """Return the code and the message of a CHECK of the IPAM plugin."""
    conf = dhcp.network.conf | {"prevResult": attached.answer.json}
    answer = dhcp.host.plugin("dhcp", "CHECK", conf, netns=attached.sandbox)
    return answer.code, answer.msg


def test_a_refusal_by_the_server_of_the_lease_ends_it(dhcp: DhcpHost) -> None:
    attached = dhcp.network.add("c1")
    dhcp.stop()
    dhcp.host.run(["rm", LEASES])
    dhcp.serve(first=200, last=250)
    dhcp.age(renew_s=1)
    assert "DHCPNAK" in dhcp.log()
    assert dhcp.record().state == leases.REFUSED
    assert not is_up(attached)
    text = f"dhcp: server {SERVER} has refused to renew {attached.address} on eth0"
    assert check(dhcp, attached) == (Code.MISMATCH, text)
    # The helper leaves it alone, and DEL releases nothing.
    [running] = dhcp.host.call(control.find)
    assert dhcp.host.call(control.report, running)["holds"] == []
    dhcp.network.delete("c1")
    assert "DHCPRELEASE" not in dhcp.log()
    # A new attachment has an address of the new range.
    assert dhcp.network.add("c2").address.startswith("10.77.0.2")


def test_a_refusal_by_another_server_does_not_end_the_lease(dhcp: DhcpHost) -> None:
    attached = dhcp.network.add("c1")
    dhcp.stop()
    dhcp.host.run(["rm", LEASES])
    dhcp.serve(first=200, last=250, place=second_server(dhcp))
    dhcp.age(renew_s=1, rebind_s=2)
    assert "DHCPNAK" in dhcp.log()
    assert dhcp.record().state == leases.BOUND
    assert is_up(attached)
    assert check(dhcp, attached) == (0, "")


def test_rebinding_finds_another_server(dhcp: DhcpHost) -> None:
    attached = dhcp.network.add("c1")
    dhcp.serve(place=second_server(dhcp))
    # The server of the lease is gone: a request to it alone has no answer.
    before = dhcp.record()
    dhcp.age(renew_s=1)
    assert dhcp.record().server == before.server
    # With another end, as the helper pauses between two attempts for one lease.
    dhcp.age(renew_s=1, rebind_s=2, expires_s=(before.expires_s or 0) + 1)
    after = dhcp.record()
    assert (str(after.server), str(after.address), after.state) == (SECOND, attached.address, leases.BOUND)
    assert after.server_mac != before.server_mac
    # Then renewal and release go to that one.
    dhcp.age(renew_s=1)
    assert dhcp.record().xid != after.xid
    dhcp.network.delete("c1")
    wait_for(lambda: attached.address not in dhcp.leased())


def test_a_lease_expires_when_its_server_is_gone(dhcp: DhcpHost) -> None:
    """The times are those of busybox's server, which gives leases of seconds; nothing is made older."""
    dhcp.stop()
    lines = ["start 10.77.0.20", "end 10.77.0.20", "interface eth0", "lease_file /run/udhcpd.leases"]
    lines += ["option subnet 255.255.255.0", "option lease 8", "min_lease 1", "pidfile /run/udhcpd.pid"]
    dhcp.host.run(["sh", "-c", "cat > /run/udhcpd.conf; touch /run/udhcpd.leases"], "\n".join(lines) + "\n")
    with dhcp.server.place.popen(["busybox", "udhcpd", "-f", "-a", "1", "/run/udhcpd.conf"]) as process:
        attached = dhcp.network.add("c1")
        process.kill()
    wait_for(lambda: not is_up(attached))
    assert dhcp.record().state == leases.EXPIRED
    assert check(dhcp, attached)[0] == Code.MISMATCH
    dhcp.network.delete("c1")
    assert dhcp.host.call(attachments.load, KEY) is None


@pytest.mark.parametrize("victim", ["helper", "guard"])
def test_renewals_go_on_after_a_kill_without_a_call(dhcp: DhcpHost, victim: str) -> None:
    dhcp.network.add("c1")
    before = dhcp.record()
    dhcp.age_unseen(renew_s=1)
    [pid] = dhcp.helpers() if victim == "helper" else dhcp.guards()
    os.kill(pid, signal.SIGKILL)
    renewed = wait_for(lambda: (now := dhcp.record()).xid != before.xid and now)
    assert renewed.expires_s > before.expires_s
    assert wait_for(lambda: (len(dhcp.guards()), len(dhcp.helpers())) == (1, 1))


def test_a_stopped_helper_resumes_all_leases_with_the_next_call(dhcp: DhcpHost) -> None:
    dhcp.network.add("c1")
    before = dhcp.record()
    assert [each.name for each in dhcp.host.call(_stop)] == ["dhcp"]
    dhcp.age_unseen(renew_s=1)
    assert dhcp.record().renew_s == 1
    assert dhcp.host.plugin("dhcp", "STATUS", dhcp.network.conf).code == Code.LIMITED_CONNECTIVITY
    dhcp.network.add("c2")
    assert wait_for(lambda: (now := dhcp.record()).xid != before.xid and now).state == leases.BOUND
    assert f"{before.address} " in dhcp.leased()


def _stop() -> list[control.Running]:
    return control.stop(control.find())


def test_leases_of_an_earlier_boot_are_dropped(dhcp: DhcpHost) -> None:
    dhcp.network.add("c1")
    dhcp.kill()
    dhcp.host.call(Path("/run/pycni/boot").write_text, "an earlier boot")
    # A worker of this boot has looked at the file already.
    dhcp.network.add("c2", env={"PYCNI_WARM": "off"})
    assert [key.container_id for key, _, _ in dhcp.host.call(records.list_leases)] == ["c2"]
    [running] = dhcp.host.call(control.find)
    wait_for(lambda: len(dhcp.host.call(control.report, running).get("holds", ())) == 1)


def test_a_server_behind_a_relay_leases_renews_and_takes_back(dhcp: DhcpHost) -> None:
    """The relay stands where the server was; its address is the router of the containers."""
    far = dhcp.host.sandbox("far")
    far.run(["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1", "netns", "server"])
    far.run(["ip", "addr", "add", "10.88.0.2/24", "dev", "eth0"])
    far.run(["ip", "link", "set", "eth0", "up"])
    dhcp.server.run(["ip", "addr", "add", "10.88.0.1/24", "dev", "eth1"])
    dhcp.server.run(["ip", "link", "set", "eth1", "up"])
    far.run(["ip", "route", "add", "10.77.0.0/24", "via", "10.88.0.1"])
    dhcp.server.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])
    dhcp.serve(place=far)
    relay = ["--no-daemon", "--port=0", "--conf-file=/dev/null", "--pid-file=", "--user=root"]
    relay.append(f"--dhcp-relay={SERVER},10.88.0.2")
    with dhcp.server.place.popen(["dnsmasq", *relay]) as process:
        try:
            wait_for(lambda: ":67 " in dhcp.server.run(["ss", "-lun"]))
            attached = dhcp.network.add("c1")
            before = dhcp.record()
            assert (str(before.server), attached.address[:8]) == ("10.88.0.2", "10.77.0.")
            dhcp.age(renew_s=1)
            assert dhcp.record().xid != before.xid
            dhcp.network.delete("c1")
            wait_for(lambda: attached.address not in dhcp.leased())
        finally:
            process.kill()


def _messages(dhcp: DhcpHost, args: str = "", **ipam: Any) -> dict[int, Message]:
    """Attach and delete a container; return its messages by their kind, as they arrive at the server."""
    dhcp.network.conf["ipam"] |= ipam
    with open_netns(f"/proc/{dhcp.host.pid}/root/run/netns/server") as ns, ns.entered():
        sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    seen: dict[int, Message] = {}
    with sniffer:
        sniffer.settimeout(WITHIN_S)
        sniffer.bind(("eth0", 0x0800))
        dhcp.network.add("c1", args=args)
        dhcp.network.delete("c1", args=args)
        while packets.RELEASE not in seen:
            packet, sender = sniffer.recvfrom(2000)
            is_to_server = packet[9] == 17 and packet[22:24] == packets.SERVER_PORT.to_bytes(2)
            if is_to_server and sender[2] != socket.PACKET_OUTGOING:
                message = packets.parse_request(packet[28:])
                seen[message.kind] = message
    return seen


def test_the_messages_of_a_client(dhcp: DhcpHost) -> None:
    seen = _messages(dhcp)
    # As the Go plugin's: a client without an address cannot receive another answer.
    assert seen[packets.DISCOVER].wants_broadcast
    assert seen[packets.REQUEST].wants_broadcast
    release = seen[packets.RELEASE]
    assert not release.wants_broadcast
    assert release.client_address.packed[:3] == b"\x0a\x4d\x00"
    assert str(release.address(packets.SERVER_IDENTIFIER)) == SERVER
    for each in seen.values():
        assert each.options[packets.CLIENT_IDENTIFIER] == b"\0c1/net1/eth0"
        assert each.options[packets.PARAMETER_LIST][:3] == bytes([121, 3, 1])


def test_every_kind_of_provided_and_requested_option(dhcp: DhcpHost) -> None:
    provide = [
        {"option": "host-name", "value": "db", "fromArg": "K8S_POD_NAME"},
        {"option": "user-class", "value": "from-value", "fromArg": "ABSENT"},
        {"option": "vendor-class-identifier", "value": "pycni"},
        {"option": "dhcp-client-identifier", "value": "me"},
        {"option": "43", "fromArg": "ABSENT"},
        {"option": "224", "value": "site"},
    ]
    request = [{"option": "routers", "skipDefault": True}, {"option": "subnet-mask"}, {"option": "42"}]
    seen = _messages(dhcp, "IgnoreUnknown=1;K8S_POD_NAME=web", provide=provide, request=request)
    values = {12: b"web", 77: b"from-value", 60: b"pycni", 61: b"me", 224: b"site", 55: bytes([3, 1, 42])}
    for each in seen.values():
        assert {code: each.options.get(code) for code in values} == values
        assert 43 not in each.options


def test_a_lease_time_of_zero_is_malformed() -> None:
    options = {packets.SERVER_IDENTIFIER: bytes(4), packets.LEASE_TIME: bytes(4)}
    ack = Message(packets.ACK, 1, b"\2" * 6, options, your_address=IPv4Address("10.77.0.5"))
    with pytest.raises(MalformedError, match="a lease time of 0"):
        leases.of_acknowledgement(ack, b"\2" * 6, leases.Identity(b"\2" * 6, {}), 0)
