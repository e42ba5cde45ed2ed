"""resolv.conf and hosts of `pycni run`, from options, results and the host's files."""

from __future__ import annotations

from typing import Any

import pytest

from cni.errors import CniError
from cni.runtime import etc_files
from cni.runtime.etc_files import Resolver

HOST = Resolver(("127.0.0.53", "192.0.2.1", "fe80::1%eth0"), ("corp.test",), ("edns0",))
RESULTS: list[dict[str, Any]] = [
    {"ips": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1"}, {"address": "fd01::2/64"}]},
    {"dns": {"nameservers": ["10.2.0.1"], "search": ["lab.test", "corp.test"], "options": ["ndots:2"]}},
    {"dns": {"nameservers": ["10.3.0.1", "10.2.0.1"], "domain": "shop.test"}},
]


def test_a_resolv_conf_is_read_as_the_c_library_reads_it() -> None:
    text = "# a\nnameserver 127.0.0.53\nnameserver 192.0.2.1 x\ndomain a.test\nsearch corp.test\nnameserver\n"
    text += "options edns0\n;\nnameserver fe80::1%eth0\nsortlist 1\n"
    assert etc_files.parse_resolv_conf(text) == HOST
    assert etc_files.parse_resolv_conf(etc_files.show_resolv_conf("c", HOST)) == HOST
    assert etc_files.show_resolv_conf("c", Resolver()).count("\n") == 1


def test_options_replace_networks_and_networks_the_host() -> None:
    networks, host = etc_files.of_results(RESULTS), etc_files.without_loopback(HOST)
    assert host.servers == ("192.0.2.1", "fe80::1%eth0")
    assert etc_files.join(Resolver(), Resolver(), host) == host
    joined = etc_files.join(Resolver(), networks, host)
    assert joined.servers == ("10.2.0.1", "10.3.0.1")
    assert joined.search == ("shop.test", "lab.test", "corp.test")
    assert joined.options == ("ndots:2", "edns0")
    asked = Resolver(("1.1.1.1",), (".",), ("rotate",))
    assert etc_files.join(asked, networks, host) == Resolver(("1.1.1.1",), (), ("rotate",))


def test_hosts_has_the_added_names_first() -> None:
    added = etc_files.parse_added(["db:192.0.2.7", "six=fd00::7", "v6:[fd00::8]", "up:host-gateway"])
    text = etc_files.show_hosts("web", ["web", "web"], RESULTS, added, "127.0.1.1 me\n")
    assert text.splitlines()[1:] == [
        "192.0.2.7\tdb",
        "fd00::7\tsix",
        "fd00::8\tv6",
        "10.1.0.1\tup",
        "10.1.0.2\tweb",
        "fd01::2\tweb",
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost",
        "127.0.1.1 me",
    ]
    host = "127.0.0.1 x localhost # y\n"
    assert etc_files.show_hosts("web", [], [], [], host).splitlines()[1:] == host.splitlines()


@pytest.mark.parametrize(
    "text", ["", "a", "a:b", "a:", ":192.0.2.1", "a b:192.0.2.1", "a:192.0.2.1\n1 b", "#:1.1.1.1"]
)
def test_wrong_hosts_are_refused(text: str) -> None:
    with pytest.raises(CniError, match="--add-host"):
        etc_files.parse_added([text])


@pytest.mark.parametrize(
    "resolver", [Resolver(("x",)), Resolver((), ("a b",)), Resolver((), ("",)), Resolver((), (), ("a\nb",))]
)
def test_wrong_lines_are_refused(resolver: Resolver) -> None:
    with pytest.raises(CniError, match="invalid value for --dns"):
        etc_files.check(resolver)


def test_a_gateway_that_no_network_has_is_an_error() -> None:
    with pytest.raises(CniError, match="no network of the container has a gateway"):
        etc_files.show_hosts("web", [], [], [("a", "host-gateway")], "")
