"""Debian's firewalld on the host: queries are accepted in the zones that containers' packets arrive in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.interop.firewalld import Firewalld, why_no_firewalld
from tests.names_world import Network, ask, is_silent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cni.testing import Host
    from tests.names_world import Attached

pytestmark = [
    pytest.mark.modes("warm"),
    pytest.mark.interop,
    pytest.mark.skipif(bool(why_no_firewalld()), reason=why_no_firewalld() or "it is there"),
]
RULE = (
    'rule family="ipv4" source address="10.1.0.0/24" destination address="10.1.0.1" '
    'port port="53" protocol="udp" accept'
)


@pytest.fixture
def firewalld(request: pytest.FixtureRequest, host: Host, tmp_path: Path) -> Iterator[Firewalld]:
    folder = tmp_path / "firewalld"
    folder.mkdir()
    with Firewalld(host, folder, getattr(request, "param", "nftables")) as firewalld:
        yield firewalld


def answers(net: Network, asker: Attached, name: str = "web") -> bool:
    return all(
        ask(asker.sandbox, name, server=server, tcp=tcp)[0] == "NOERROR"
        for server in (net.gateway, net.gateway6)
        for tcp in (False, True)
    )


def rich(firewalld: Firewalld, zone: str = "public") -> set[str]:
    return set(filter(None, firewalld.cmd(f"--zone={zone}", "--list-rich-rules").splitlines()))


def test_one_life(host: Host, firewalld: Firewalld) -> None:
    net = Network(host)
    # An administrator has one of the rules already.
    firewalld.cmd(f"--add-rich-rule={RULE}")
    web, other = net.attach("web"), net.attach("other")
    assert answers(net, other)
    with host.serve(81, "tcp", net.gateway):
        assert not other.sandbox.reaches(net.gateway, 81)
    made = rich(firewalld)
    assert len(made) == 4
    assert all("10.1.0.1" in each or "fd01::1" in each for each in made)
    assert net.call("CHECK", web).ok
    assert net.status().ok
    firewalld.cmd("--reload")
    answer = net.call("CHECK", web)
    assert (answer.code, answer.msg) == (104, f"firewalld zone public has no rich rule '{RULE}'")
    assert is_silent(web.sandbox, "web", net.gateway)
    assert net.status().code == 51
    net.call("PYCNI_REPAIR", web).must()
    assert rich(firewalld) == made
    assert answers(net, other)
    # The bridge moves to another zone, and the next container brings the rules there.
    firewalld.cmd("--zone=internal", "--add-interface=br1")
    assert "firewalld zone internal has no rich rule" in str(net.call("CHECK", web).json)
    third = net.attach("third")
    assert rich(firewalld, "internal") == made
    assert answers(net, third)
    for each in (web, other):
        net.detach(each)
    assert answers(net, third, "third")
    net.call("DEL", third, prevResult=None).must()
    # The rule of the administrator went with the reload: the one that there is now was added by repair.
    assert rich(firewalld) | rich(firewalld, "internal") == set()


def test_what_an_administrator_has_made_stays(host: Host, firewalld: Firewalld) -> None:
    net = Network(host)
    firewalld.cmd(f"--add-rich-rule={RULE}")
    before = rich(firewalld)
    # The network is a source of another zone.
    firewalld.cmd("--zone=work", "--add-source=fd01::/48")
    web = net.attach("web")
    assert answers(net, web)
    assert len(rich(firewalld)) == 2
    assert len(rich(firewalld, "work")) == 2
    # GC removes the rules with the last name.
    net.call("GC", web, **{"cni.dev/valid-attachments": []}).must()
    assert rich(firewalld) == before
    assert rich(firewalld, "work") == set()


def test_an_add_fails_without_firewalld_unless_packets_pass(host: Host, firewalld: Firewalld) -> None:
    net = Network(host)
    web = net.prepare("web")
    host.run(["mv", "/run/dbus", "/run/elsewhere"])
    answer = net.call("ADD", web)
    assert answer.code == 101
    assert "could not accept queries with firewalld: could not connect to the system bus" in answer.msg
    host.run(["mv", "/run/elsewhere", "/run/dbus"])
    assert rich(firewalld) == set()
    firewalld.trust("br1")
    host.run(["mv", "/run/dbus", "/run/elsewhere"])
    net.call("ADD", web).must()
    assert answers(net, web)
    net.call("CHECK", web).must()
    net.call("DEL", web).must()
    host.run(["mv", "/run/elsewhere", "/run/dbus"])


@pytest.mark.parametrize("firewalld", ["iptables"], indirect=True)
def test_with_iptables_behind_it(host: Host, firewalld: Firewalld) -> None:
    net = Network(host)
    web = net.attach("web")
    assert answers(net, web)
    firewalld.cmd("--reload")
    assert net.call("CHECK", web).code == 104
    assert is_silent(web.sandbox, "web", net.gateway)
    net.call("PYCNI_REPAIR", web).must()
    assert answers(net, web)
    assert net.call("CHECK", web).ok
    net.detach(web)
    assert "CNI-NM-" not in host.run(["iptables-save"])
