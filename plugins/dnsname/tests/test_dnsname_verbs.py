"""The verbs of dnsname on a host: names are answered when ADD returns, and not when DEL has returned."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from tests.names_world import (
    EMPTY,
    NO,
    Network,
    ask,
    kill_servers,
    records,
    servers,
    wait_for_end,
)
from tests.support.patience import wait_until

if TYPE_CHECKING:
    from cni.testing import Host


def test_a_name_is_answered_from_add_to_del(host: Host) -> None:
    net = Network(host)
    other = net.attach("other")
    web = net.attach("web", "www")
    assert web.added["dns"] == {"nameservers": ["10.1.0.1", "fd01::1"], "search": ["net1.test"]}
    for name in ("web", "www", "WEB.net1.test"):
        assert ask(other.sandbox, name) == ("NOERROR", [web.addresses[0]])
        assert ask(other.sandbox, name, "AAAA", "fd01::1") == ("NOERROR", [web.addresses[1]])
    # The record is a part of the result, which the runtime passes on: the plugin after it sees them.
    assert net.call("CHECK", web).ok
    net.detach(web)
    assert ask(other.sandbox, "web") == ask(other.sandbox, "www") == NO
    # A second DEL, and one without anything that an ADD has left.
    net.detach(web)
    assert net.call("DEL", web, prevResult=None).ok
    net.detach(other)
    wait_for_end(host)
    assert records(host) == []


def test_del_knows_its_own_of_two_containers_of_one_name(host: Host) -> None:
    net = Network(host)
    one = net.attach("web", container_id="one")
    two = net.attach("web", container_id="two")
    assert ask(one.sandbox, "web") == ("NOERROR", sorted([one.addresses[0], two.addresses[0]]))
    assert net.call("DEL", one, prevResult=None).ok
    assert ask(two.sandbox, "web") == ("NOERROR", [two.addresses[0]])
    two.sandbox.delete()
    assert net.call("DEL", two).ok
    assert records(host) == []


def test_a_container_on_two_networks_sees_both(host: Host) -> None:
    first, second = Network(host, 1), Network(host, 2)
    web1, web2 = first.attach("web", container_id="w1"), second.attach("web", container_id="w2")
    only = second.attach("only2")
    both = second.attach("both")
    assert ask(both.sandbox, "web", server="10.2.0.1") == ("NOERROR", [web2.addresses[0]])
    again = first.attach("both", ifname="eth1")
    # The first network comes first, whichever server is asked, as resolv.conf has only one of them.
    for server in ("10.1.0.1", "10.2.0.1"):
        assert ask(both.sandbox, "web", server=server) == ("NOERROR", [web2.addresses[0]])
        assert ask(both.sandbox, "web.net1.test", server=server) == ("NOERROR", [web1.addresses[0]])
        assert ask(both.sandbox, "only2", server=server) == ("NOERROR", [only.addresses[0]])
    assert ask(web1.sandbox, "only2", server="10.1.0.1") == NO
    assert ask(web1.sandbox, "only2.net2.test", server="10.1.0.1") == NO
    assert ask(web1.sandbox, "both") == ("NOERROR", [again.addresses[0]])
    second.detach(both)
    assert ask(both.sandbox, "web") == ("NOERROR", [web1.addresses[0]])
    assert ask(both.sandbox, "only2") == NO


def test_check_status_and_repair_ask_the_server(host: Host) -> None:
    net = Network(host)
    web = net.attach("web")
    assert net.status().ok
    kill_servers(host)
    wait_for_end(host)
    checked = net.call("CHECK", web)
    assert (checked.code, checked.msg) == (
        104,
        'the DNS server at 10.1.0.1 does not answer "web" with the container\'s address',
    )
    limited = net.status()
    assert limited.code == 51
    assert "the DNS server does not run" in limited.msg
    assert net.call("PYCNI_REPAIR", web).ok
    assert net.call("CHECK", web).ok
    assert net.status().ok
    # A record that is lost is another matter than a server.
    host.run(["sh", "-c", "rm /run/pycni/dns/*/*"])
    assert net.call("CHECK", web).msg == 'the name "web" is not on record'
    assert net.call("PYCNI_REPAIR", web).ok
    assert ask(web.sandbox, "web") == ("NOERROR", [web.addresses[0]])


def test_gc_withdraws_what_is_not_valid(host: Host) -> None:
    net, other = Network(host, 1), Network(host, 2)
    web, gone, elsewhere = net.attach("web"), net.attach("gone"), other.attach("elsewhere")
    valid = [{"containerID": web.container_id, "ifname": "eth0"}]
    assert net.status("GC", **{"cni.dev/valid-attachments": valid}).ok
    assert ask(web.sandbox, "gone") == NO
    assert ask(web.sandbox, "web") == ("NOERROR", [web.addresses[0]])
    assert ask(elsewhere.sandbox, "elsewhere", server="10.2.0.1") == ("NOERROR", [elsewhere.addresses[0]])
    assert net.call("DEL", gone).ok


def test_a_taken_port_is_an_error_that_names_the_program(host: Host) -> None:
    net = Network(host)
    # The bridge is there before, so that the other program can bind to its address.
    first = net.prepare("first")
    for protocol in ("udp", "tcp"):
        with host.serve(53, protocol, "10.1.0.1"):
            failed = net.call("ADD", first)
            assert failed.code == 103
            assert 'could not publish "first": port 53 of 10.1.0.1 is taken: process ' in failed.msg
            assert records(host) == []
    assert net.call("ADD", first).ok
    assert ask(host, "first") == ("NOERROR", [first.addresses[0]])


def test_an_internal_network_has_its_own_names_only(host: Host) -> None:
    net = Network(host, internal=True)
    web, other = net.attach("web"), net.attach("other")
    assert ask(web.sandbox, "other") == ("NOERROR", [other.addresses[0]])
    assert ask(web.sandbox, "example.com") == NO


def test_names_that_are_none_are_refused(host: Host) -> None:
    net = Network(host)
    web = net.prepare("web")
    newline = "www\n10.9.9.9 bank.test"
    refused = net.call("ADD", web, runtimeConfig={"aliases": {"net1": [newline]}})
    assert refused.code == 7
    assert "cannot be a name" in refused.msg
    assert net.call("ADD", web._replace(args="IgnoreUnknown=1;K8S_POD_NAME=a b")).code == 4
    assert net.call("ADD", web, prevResult={"cniVersion": "1.0.0", "ips": []}).code == 7
    no_gateway = {"cniVersion": "1.0.0", "ips": [{"address": "10.77.0.2/24", "gateway": "10.77.0.1"}]}
    assert net.call("ADD", web, prevResult=no_gateway).code == 7
    assert records(host) == []
    # Without a name the container has its ID.
    added = net.call("ADD", web._replace(args="", container_id="0123456789abcdef"))
    assert added.ok
    assert ask(host, "0123456789ab") == ("NOERROR", [web.addresses[0]])


def test_an_ended_container_gives_its_address_to_the_next(host: Host) -> None:
    net = Network(host)
    old = net.attach("old")
    asker = net.attach("asker")
    # A runtime was killed: there was no DEL, and the lease was given to another container.
    new = old._replace(container_id="new", args="IgnoreUnknown=1;K8S_POD_NAME=new")
    assert net.call("ADD", new).ok
    assert ask(asker.sandbox, "new") == ("NOERROR", [old.addresses[0]])
    assert ask(asker.sandbox, "old") == EMPTY


def test_version_is_shown_without_a_command(host: Host) -> None:
    done = host.place.run([str(host.bindir / "dnsname"), "--version"], check=False)
    assert done.returncode == 0
    assert "dnsname" in done.stderr


def test_a_helper_without_work_ends_and_starts_again(host: Host) -> None:
    net = Network(host)
    web = net.attach("web")
    [(guard, _)] = servers(host)
    net.detach(web)
    wait_until(lambda: not host.call(_is_alive, guard))
    assert net.call("ADD", web).ok
    assert ask(host, "web") == ("NOERROR", [web.addresses[0]])


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return False
    return True
