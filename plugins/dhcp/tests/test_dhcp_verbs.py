"""All verbs against real servers behind a bridge, and the helper's life: renewal, death, upgrade, end."""

from __future__ import annotations

import json
import signal
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

import pytest

from cni.errors import Code
from cni.state import attachments
from cni.testing.executables import make_warm_bindir
from cni.testing.faults import KILL, TELL, Fault, list_met
from cni.testing.network import Network
from cni.versions import SUPPORTED, at_least
from cni_dhcp import lease as leases
from cni_dhcp import records
from plugin_table import declared, packages
from tests.dhcp_host import KEY, SERVER, DhcpHost, dhcp, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Answer

__all__ = ["dhcp"]

# The first tests show that a cold and a warm call start the helper.
warm = pytest.mark.modes("warm")


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
    # A worker that has started the helper has changed nothing that the leak check finds.
    assert "worker ends" not in dhcp.host.run(["sh", "-c", "cat /run/pycni/warm/log 2>/dev/null || true"])


def test_the_same_container_gets_its_address_again(dhcp: DhcpHost) -> None:
    first = dhcp.network.add("c1")
    assert dhcp.network.add("c2").address != first.address
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
    dhcp.network.conf["ipam"] |= {"provide": provide, "request": request, "daemonSocketPath": "/run/x"}
    attached = dhcp.network.add("c1", args="IgnoreUnknown=1;NAME=web")
    # Dnsmasq sends a router only if it is asked for one.
    assert "gateway" not in attached.answer.json["ips"][0]
    assert "routes" not in attached.answer.json
    assert "has no effect: there is no daemon" in attached.answer.stderr
    assert " web " in dhcp.leased()
    too_long = dhcp.network.call(
        "ADD", "c2", dhcp.host.sandbox("c2"), args=f"IgnoreUnknown=1;NAME={'x' * 256}"
    )
    assert too_long.code == Code.INVALID_ENVIRONMENT


def test_a_link_on_a_master_leases_and_releases_too(dhcp: DhcpHost) -> None:
    dhcp.host.run(["ip", "link", "set", "tosrv", "nomaster"])
    dhcp.network.conf.update(type="macvlan", master="tosrv")
    network = Network(dhcp.host, "macvlan", **dhcp.network.conf)
    attached = network.add("c1")
    with dhcp.server.serve(5000):
        assert attached.sandbox.dial(SERVER, 5000).address == attached.address
    assert network.check(attached).must() == {}
    for _ in range(2):
        network.delete("c1")
    wait_for(lambda: not dhcp.leased())


def test_a_container_is_deleted_without_helper_server_and_namespace(dhcp: DhcpHost) -> None:
    before = dhcp.host.snapshot()
    kept, gone = dhcp.network.add("c1"), dhcp.network.add("c2")
    dhcp.kill()
    dhcp.stop()
    gone.sandbox.delete()
    for name in ("c1", "c1", "c2", "c2"):
        dhcp.network.delete(name)
    assert dhcp.helpers() == []
    kept.sandbox.delete()
    assert [each for each in dhcp.differences(before) if "/pycni/helpers/" not in each] == []


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
    answer = dhcp.host.plugin("dhcp", "ADD", dhcp.network.conf, netns="/run/netns/c1")
    assert (answer.code, answer.msg) == (Code.KERNEL, 'failed to lookup "eth0": Link not found')
    answer = dhcp.network.call("ADD", "c1")
    assert answer.code == Code.TRY_AGAIN
    assert "no more tries: no DHCP server answered on eth0 within 1 s" in answer.msg
    assert "Start a DHCP server" in answer.json["details"]
    assert dhcp.differences(before) == []


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
            assert before.expires_s - before.renew_s == pytest.approx(300)
            dhcp.age(renew_s=1)
            wait_for(lambda: dhcp.record().xid != before.xid)
            dhcp.network.delete("c1")
            # The address is free again for a client that asks for none.
            assert dhcp.network.add("c2").address == attached.address
        finally:
            process.kill()


@warm
def test_one_life_in_every_version(dhcp: DhcpHost) -> None:
    for number, version in enumerate(SUPPORTED):
        dhcp.network.conf["cniVersion"] = version
        attached = dhcp.network.add(f"v{number}")
        if at_least(version, "0.4.0"):
            assert dhcp.network.check(attached).must() == {}
        for _ in range(2):
            dhcp.network.delete(f"v{number}")
    wait_for(lambda: not dhcp.leased())


@warm
def test_the_helper_renews_before_the_end_and_rebinds_with_another_server(dhcp: DhcpHost) -> None:
    attached = dhcp.network.add("c1")
    before = dhcp.record()
    assert before.expires_s is not None
    dhcp.age(renew_s=before.renew_s - 3600)
    renewed = wait_for(lambda: (now := dhcp.record()).xid != before.xid and now)
    assert (renewed.address, renewed.state) == (before.address, leases.BOUND)
    assert renewed.expires_s > before.expires_s
    # The server of the lease is gone; another one knows the client.
    dhcp.age(renew_s=1, rebind_s=2, server=IPv4Address("10.77.0.9"), server_mac=b"\2" * 6)
    rebound = wait_for(lambda: (now := dhcp.record()).renew_s != 1 and now)
    assert str(rebound.server) == SERVER
    assert dhcp.network.check(attached).must() == {}


@warm
def test_the_link_of_an_expired_lease_goes_down(dhcp: DhcpHost) -> None:
    attached = dhcp.network.add("c1")
    dhcp.age(renew_s=1, rebind_s=2, expires_s=3)
    wait_for(lambda: "state DOWN" in attached.sandbox.run(["ip", "link", "show", "eth0"]))
    assert dhcp.record().state == leases.EXPIRED
    conf = dhcp.network.conf | {"prevResult": attached.answer.json}
    answer = dhcp.host.plugin("dhcp", "CHECK", conf, netns=attached.sandbox)
    assert answer.code == Code.MISMATCH
    assert answer.msg == f"dhcp: the lease of {attached.address} on eth0 has expired"
    dhcp.network.delete("c1")


@warm
def test_a_helper_that_is_killed_with_its_guard_is_restarted_by_a_call(dhcp: DhcpHost) -> None:
    attached = dhcp.network.add("c1")
    dhcp.kill()
    status = dhcp.host.plugin("dhcp", "STATUS", dhcp.network.conf)
    assert status.code == Code.LIMITED_CONNECTIVITY
    assert f"{attached.address} of c1" in status.msg
    assert dhcp.network.check(attached).must() == {}
    assert len(wait_for(dhcp.helpers)) == 1
    before = dhcp.record()
    dhcp.age(renew_s=1)
    wait_for(lambda: dhcp.record().xid != before.xid)
    assert dhcp.host.plugin("dhcp", "STATUS", dhcp.network.conf).must() == {}


@warm
def test_a_helper_of_another_build_is_replaced(dhcp: DhcpHost) -> None:
    dhcp.network.add("c1")
    [first] = dhcp.helpers()
    dhcp.host.call(_wake_as, "another build")
    [second] = wait_for(lambda: (now := dhcp.helpers()) != [first] and len(now) == 1 and now)
    dhcp.age(renew_s=1)
    wait_for(lambda: dhcp.record().renew_s != 1)
    # The plugin's build has taken its place again.
    assert len(wait_for(lambda: (now := dhcp.helpers()) != [second] and len(now) == 1 and now)) == 1


def _wake_as(build: str) -> None:
    records.HELPER._replace(version=build).wake()


@warm
def test_a_helper_ends_when_no_lease_is_left(dhcp: DhcpHost) -> None:
    dhcp.host.call(records.HELPER._replace(name="brief", linger_s=0).wake)
    wait_for(lambda: not dhcp.helpers())
    sockets = dhcp.host.run(["ls", "/run/pycni/helpers"]).split()
    assert not [each for each in sockets if each.endswith(".sock")]


@warm
def test_calls_at_once_start_one_helper(dhcp: DhcpHost) -> None:
    for name in ("c1", "c2", "c3"):
        dhcp.host.sandbox(name)
    command = ["sh", "-c", "\n".join(f"{_shell(dhcp, name)} &" for name in ("c1", "c2", "c3")) + "\nwait"]
    dhcp.host.run(command)
    assert len(dhcp.helpers()) == 1
    assert dhcp.leased().count("\n") == 3


def _shell(dhcp: DhcpHost, name: str) -> str:
    env = {"COMMAND": "ADD", "CONTAINERID": name, "NETNS": f"/run/netns/{name}", "IFNAME": "eth0"}
    env["PATH"] = str(dhcp.host.bindir)
    variables = " ".join(f"CNI_{key}={value}" for key, value in env.items())
    return f"echo '{json.dumps(dhcp.network.conf)}' | {variables} {dhcp.host.bindir}/bridge > /dev/null"


@warm
def test_a_killed_call_leaves_what_del_removes(dhcp: DhcpHost, launcher: Path, tmp_path: Path) -> None:
    options: Any = {"bindir": make_warm_bindir(tmp_path, packages(declared()), launcher, with_faults=True)}
    cold = {"PYCNI_WARM": "off"}
    sandbox = dhcp.host.sandbox("c1")
    dhcp.network.add("c2")
    before = dhcp.host.snapshot()

    def call(verb: str, fault: Fault | None = None) -> Answer:
        return dhcp.network.call(verb, "c1", sandbox, env=cold | (fault.env if fault else {}), **options)

    for verb in ("ADD", "DEL"):
        if verb == "DEL":
            call("ADD").must()
        met = list_met(call(verb, Fault(TELL, "")))
        call("DEL").must()
        # Each change of a record, and the helper that was asked.
        places = [each.split() for each in met if each.startswith("store.")]
        assert places
        for point, number in places:
            if verb == "DEL":
                call("ADD").must()
            assert call(verb, Fault(KILL, point, int(number))).status == -signal.SIGKILL, (verb, point)
            call("DEL").must()
            assert dhcp.host.call(attachments.load, KEY) is None
            assert dhcp.differences(before) == []
        wait_for(lambda: dhcp.leased().count("\n") == 1)
