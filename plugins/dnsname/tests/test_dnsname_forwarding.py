"""Names of others: the servers of resolv.conf, dead ones, replaced ones, and loops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.names_world import (
    ELSEWHERE,
    FAILED,
    Foreign,
    Network,
    Question,
    ask,
    ask_all,
    now,
    own_etc,
    replace_resolv_conf,
)
from tests.support.patience import wait_until

if TYPE_CHECKING:
    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")

FOUND = ("NOERROR", [ELSEWHERE])


def test_resolv_conf_is_read_again_when_it_is_replaced(host: Host) -> None:
    own_etc(host)
    outside = host.outside
    web = Network(host).attach("web")
    # There is none yet.
    assert ask(web.sandbox, "one.example.com") == FAILED
    with Foreign(outside.sandbox, outside.address) as first:
        replace_resolv_conf(host, outside.address)
        assert ask(web.sandbox, "one.example.com") == FOUND
        # A search of another server would be seen there.
        with Foreign(outside.sandbox, outside.address6, "/run/second.log") as second:
            replace_resolv_conf(host, "not an address", outside.address6)
            assert ask(web.sandbox, "two.example.com") == FOUND
            assert (first.asked, second.asked) == (["one.example.com"], ["two.example.com"])


def test_a_link_local_server_is_asked_by_its_link(host: Host) -> None:
    own_etc(host)
    outside = host.outside
    outside.sandbox.run(["ip", "addr", "add", "fe80::53/64", "dev", "eth0", "nodad"])
    host.run(["ip", "addr", "add", "fe80::54/64", "dev", "eth0", "nodad"])
    web = Network(host).attach("web")
    with Foreign(outside.sandbox, "::"):
        # A link that is not there is passed over, and one without a scope as well.
        replace_resolv_conf(host, "fe80::53%gone0", "fe80::53%eth0")
        assert ask(web.sandbox, "one.example.com") == FOUND
        assert ask(web.sandbox, "two.example.com", tcp=True) == FOUND


def test_a_dead_server_is_passed_over(host: Host) -> None:
    outside = host.outside
    # Nothing answers at the first address: no host has it. At the second one nothing listens.
    servers = ["192.0.2.99", outside.host_address, outside.address]
    web = Network(host, upstreams=servers).attach("web")
    with Foreign(outside.sandbox, outside.address):
        began = now()
        assert ask(web.sandbox, "first.example.com") == FOUND
        slow = now() - began
        began = now()
        later = [Question(f"{name}.example.com") for name in "abcdefgh"]
        assert ask_all(web.sandbox, later) == [FOUND] * 8
        # The dead one is asked last for a while: the eight did not wait for it once.
        assert now() - began < slow
    assert ask(web.sandbox, "late.example.com") == FAILED


def test_other_names_do_not_exist_without_servers(host: Host) -> None:
    web = Network(host, upstreams=[]).attach("web")
    assert ask(web.sandbox, "example.com") == ("NXDOMAIN", [])


def test_a_container_that_is_the_server_is_not_asked_by_itself(host: Host) -> None:
    # A container serves names for the host, and asks the gateway for those that it does not know.
    net = Network(host, upstreams=["10.1.0.2", "10.1.0.1"])
    server, web = net.attach("server"), net.attach("web")
    assert server.addresses[0] == "10.1.0.2"
    with Foreign(server.sandbox, "10.1.0.2") as foreign:
        assert ask(web.sandbox, "example.com") == FOUND
        assert ask(server.sandbox, "example.com") == FAILED
        assert foreign.asked == ["example.com"]


def test_a_loop_over_another_server_ends(host: Host) -> None:
    # The host's own resolver is our upstream, and we are its: dnsmasq as systemd-resolved would be.
    net = Network(host, upstreams=["127.0.0.53"])
    web = net.attach("web")
    log = "/run/loop.log"
    options = ["--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--server=10.1.0.1"]
    listen = ["--listen-address=127.0.0.53", "--bind-interfaces", "--user="]
    listen += ["--log-queries", f"--log-facility={log}"]
    with host.place.popen(["dnsmasq", *options, *listen, "--cache-size=0"]) as process:
        try:
            wait_until(lambda: "started" in host.run(["sh", "-c", f"cat {log} || true"]))
            assert ask(web.sandbox, "example.com") == FAILED
        finally:
            process.kill()
    forwarded = host.run(["grep", "-c", "forwarded", log])
    assert 0 < int(forwarded) < 20
