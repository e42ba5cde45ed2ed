"""The helper: renewal, rebinding, the end of a lease; its start, its death, its upgrade and its end."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from cni.errors import Code
from cni_dhcp import lease as leases
from cni_dhcp import records
from plugins.dhcp.tests.dhcp_host import SERVER, DhcpHost, dhcp_host, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.testing import Host

# Verbs run cold as well in test_dhcp_verbs.py.
pytestmark = pytest.mark.modes("warm")


@pytest.fixture
def dhcp(host: Host) -> Iterator[DhcpHost]:
    """Yield a host with a running server."""
    with dhcp_host(host) as dhcp:
        yield dhcp


def test_the_helper_renews_before_the_end_and_rebinds_with_another_server(dhcp: DhcpHost) -> None:
    attached = dhcp.network.add("c1")
    before = dhcp.record()
    assert before.expires_s is not None
    dhcp.age(renew_s=before.renew_s - 3600)
    renewed = wait_for(lambda: (now := dhcp.record()).xid != before.xid and now)
    assert (renewed.address, renewed.state) == (before.address, leases.BOUND)
    assert renewed.expires_s > before.expires_s
    # The server of the lease is gone; another one knows the client.
    dhcp.age(renew_s=1, rebind_s=2, server=leases.IPv4Address("10.77.0.9"), server_mac=b"\2" * 6)
    rebound = wait_for(lambda: (now := dhcp.record()).renew_s != 1 and now)
    assert str(rebound.server) == SERVER
    assert dhcp.network.check(attached).must() == {}


def test_the_link_of_an_expired_lease_goes_down(dhcp: DhcpHost) -> None:
    attached = dhcp.network.add("c1")
    dhcp.age(renew_s=1, rebind_s=2, expires_s=3)
    wait_for(lambda: "state DOWN" in attached.sandbox.run(["ip", "link", "show", "eth0"]))
    assert dhcp.record().state == leases.EXPIRED
    answer = dhcp.host.plugin(
        "dhcp",
        "CHECK",
        dhcp.network.conf | {"prevResult": attached.answer.json},
        netns=attached.sandbox,
    )
    assert (answer.code, answer.msg) == (
        Code.MISMATCH,
        f"dhcp: the lease of {attached.address} on eth0 has expired",
    )
    dhcp.network.delete("c1")


def test_a_killed_helper_is_restarted_and_goes_on_from_the_records(dhcp: DhcpHost) -> None:
    attached = dhcp.network.add("c1")
    [first] = dhcp.helpers()
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: not dhcp.helpers())
    status = dhcp.host.plugin("dhcp", "STATUS", dhcp.network.conf)
    assert status.code == Code.LIMITED_CONNECTIVITY
    assert f"{attached.address} of c1" in status.msg
    assert dhcp.network.check(attached).must() == {}
    [second] = dhcp.helpers()
    before = dhcp.record()
    dhcp.age(renew_s=1)
    wait_for(lambda: dhcp.record().xid != before.xid)
    assert dhcp.helpers() == [second]
    assert dhcp.host.plugin("dhcp", "STATUS", dhcp.network.conf).must() == {}


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


def test_a_helper_ends_when_no_lease_is_left(dhcp: DhcpHost) -> None:
    dhcp.host.call(records.HELPER._replace(name="brief", linger_s=0).wake)
    wait_for(lambda: not dhcp.helpers())
    sockets = dhcp.host.run(["ls", "/run/pycni/helpers"]).split()
    assert not [each for each in sockets if each.endswith(".sock")]


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
