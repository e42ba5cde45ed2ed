"""Debian's plugin of this name and ours on one network: each serves the containers of the other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from plugin_table import ROOT
from tests.names_world import NO, Attached, Network, ask, servers
from tests.support.patience import wait_until

if TYPE_CHECKING:
    from cni.testing import Host
    from cni.testing.answer import Answer

FOLDERS = [Path("/usr/lib/cni"), ROOT / "dist/debian/usr/lib/cni"]
GO = next((each for each in FOLDERS if (each / "dnsname").exists()), None)
FOLDER = Path("/run/containers/cni/dnsname/net1")

pytestmark = [
    pytest.mark.modes("warm"),
    pytest.mark.interop,
    pytest.mark.skipif(GO is None, reason="make packages fetches Debian's plugin where there is apt"),
]


@pytest.fixture
def net(host: Host) -> Network:
    """Return a network with IPv4 only: Debian's plugin has one family in its rules."""
    net = Network(host)
    net.bridge["ipam"] = {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}]]}
    net.bridge["cniVersion"] = net.conf["cniVersion"] = "0.4.0"
    return net


def call_go(net: Network, verb: str, attached: Attached) -> Answer:
    """Call Debian's plugin."""
    conf = net.conf | {"prevResult": attached.added}
    conf["runtimeConfig"] = {"aliases": {net.name: list(attached.aliases)}}
    return net.host.plugin(
        "dnsname",
        verb,
        conf,
        netns=attached.sandbox,
        container_id=attached.container_id,
        args=attached.args,
        bindir=GO,
    )


def attach_by_go(net: Network, name: str, *aliases: str) -> Attached:
    """Attach a container by Debian's plugin."""
    made = net.prepare(name, *aliases)
    call_go(net, "ADD", made).must()
    return made


def pid_of(host: Host) -> int:
    return int(host.run(["cat", str(FOLDER / "pidfile")]))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # One that has ended may wait for its parent.
    return " Z " not in Path(f"/proc/{pid}/stat").read_text()


def test_a_network_is_taken_over_and_goes_back(host: Host, net: Network) -> None:
    old = attach_by_go(net, "old", "former")
    dnsmasq = pid_of(host)
    assert ask(old.sandbox, "old.net1.test") == ("NOERROR", old.addresses)
    new = net.attach("new")
    assert not is_alive(dnsmasq)
    for asker in (old, new):
        for name, wanted in (("old", old), ("former.net1.test", old), ("new", new)):
            assert ask(asker.sandbox, name) == ("NOERROR", wanted.addresses)
    # The way back: Debian's plugin takes our server for its dnsmasq.
    [(_, helper)] = servers(host)
    assert pid_of(host) == helper
    again = attach_by_go(net, "again")
    # The signal brings it: without one the server would look after 30 s.
    wait_until(lambda: ask(new.sandbox, "again") == ("NOERROR", again.addresses), within_s=20)
    assert ask(again.sandbox, "new") == ("NOERROR", new.addresses)
    assert call_go(net, "DEL", again).ok
    wait_until(lambda: ask(new.sandbox, "again") == NO)
    # Our DEL of its container, and the folder ends with the last name.
    assert net.call("DEL", old).ok
    assert ask(new.sandbox, "old") == NO
    net.detach(new)


def test_our_del_of_the_last_container_ends_dnsmasq(host: Host, net: Network) -> None:
    one, two = attach_by_go(net, "one"), attach_by_go(net, "two")
    dnsmasq = pid_of(host)
    assert net.call("DEL", one, prevResult=None).ok
    wait_until(lambda: ask(two.sandbox, "one.net1.test")[0] != "NOERROR")
    assert is_alive(dnsmasq)
    assert net.call("DEL", two).ok
    wait_until(lambda: not is_alive(dnsmasq))
    assert host.place.run(["ls", str(FOLDER)], check=False).returncode != 0


def test_its_last_del_ends_neither_our_server_nor_our_names(host: Host, net: Network) -> None:
    old = attach_by_go(net, "old")
    new = net.attach("new")
    # It kills the process in its file, which is our server: the guard starts another.
    assert call_go(net, "DEL", old).ok
    wait_until(lambda: servers(host))
    assert ask(new.sandbox, "new") == ("NOERROR", new.addresses)
    wait_until(lambda: ask(new.sandbox, "old") == NO)
    net.detach(new)


def test_a_process_that_is_no_dnsmasq_is_not_signalled(host: Host, net: Network) -> None:
    old = attach_by_go(net, "old")
    host.run(["kill", "-9", str(pid_of(host))])
    with host.place.popen(["sleep", "600"]) as other:
        host.run(["sh", "-c", f"echo {other.pid} > {FOLDER}/pidfile"])
        new = net.attach("new")
        assert other.poll() is None
        other.kill()
    assert ask(new.sandbox, "old") == ("NOERROR", old.addresses)
    # A line that leads elsewhere is not of this network.
    host.run(["sh", "-c", f"printf '192.0.2.1\\tbank.test\\n' >> {FOLDER}/addnhosts"])
    [(_, helper)] = servers(host)
    host.run(["kill", "-HUP", str(helper)])
    web = net.attach("web")
    assert ask(web.sandbox, "bank.test")[0] != "NOERROR"
