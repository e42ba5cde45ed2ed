"""A key of a configuration sets what is below /proc/sys/net, and nothing else on the machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni.errors import CniError, Code
from cni.kernel import sysctl
from cni.kernel.rtnetlink import Netlink

if TYPE_CHECKING:
    from cni.testing import Host

FORWARDING = "net/ipv4/conf/eth0.100/forwarding"
READ = {
    "net.ipv4.ip_forward": "net/ipv4/ip_forward",
    "net/ipv4/ip_forward": "net/ipv4/ip_forward",
    "net/ipv4.ip_forward": "net/ipv4/ip_forward",
    "net.ipv4/ip_forward": "net/ipv4/ip_forward",
    "net.core.somaxconn": "net/core/somaxconn",
    "net.ipv4.conf.eth0.forwarding": "net/ipv4/conf/eth0/forwarding",
    "net/ipv4/conf/eth0/forwarding": "net/ipv4/conf/eth0/forwarding",
    # sysctl(8) writes a dot in a link's name as a slash if dots separate.
    "net.ipv4.conf.eth0/100.forwarding": FORWARDING,
    "net.ipv4.conf.eth0.100.forwarding": FORWARDING,
    "net/ipv4/conf/eth0.100/forwarding": FORWARDING,
    "net.ipv4.conf.IFNAME.forwarding": "net/ipv4/conf/a.b/forwarding",
    "net/ipv6/neigh/IFNAME/retrans_time_ms": "net/ipv6/neigh/a.b/retrans_time_ms",
    "net.ipv6.conf.a.b.c.mtu": "net/ipv6/conf/a.b.c/mtu",
}
REFUSED = [
    "",
    ".",
    "..",
    "/",
    "net",
    "net/",
    "net.",
    "kernel/pid_max",
    "kernel.pid_max",
    "netx/ipv4/ip_forward",
    "/net/ipv4/ip_forward",
    "/proc/sys/net/ipv4/ip_forward",
    "/etc/passwd",
    "../../tmp/x",
    "net/../../../tmp/x",
    "net/../kernel/pid_max",
    "net/ipv4/../../kernel/pid_max",
    "net/ipv4/conf/../../../kernel/pid_max",
    "net.ipv4.conf..eth0.forwarding",
    "net//ipv4/ip_forward",
    "net/./ipv4/ip_forward",
    "net/ipv4/ip_forward/",
    "net/ipv4/ip_forward\0",
    "net/ipv4/ip_forward\n",
]


def count_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("text", READ)
def test_dots_and_slashes_both_separate(text: str) -> None:
    assert sysctl.parse_key(text, "a.b") == READ[text]


@pytest.mark.parametrize("text", REFUSED)
def test_a_key_that_leaves_net_is_refused(text: str) -> None:
    with pytest.raises(CniError) as caught:
        sysctl.parse_key(text, "eth0")
    assert caught.value.code == Code.INVALID_CONFIG
    assert caught.value.msg == f'invalid net sysctl key: "{text}"'


@pytest.mark.parametrize("ifname", ["..", ".", "../../../kernel", "/", "a/../../../../kernel"])
def test_an_interface_name_cannot_lead_out(ifname: str) -> None:
    with pytest.raises(CniError) as caught:
        sysctl.parse_key("net.ipv4.conf.IFNAME.forwarding", ifname)
    assert caught.value.code == Code.INVALID_CONFIG


@pytest.mark.parametrize("use", ["read", "ensure", "set_if_possible", "read_configured", "ensure_configured"])
@pytest.mark.parametrize(
    "key", ["../../run/x", "net/../../../run/x", "/run/x", "kernel/hostname", "net/..", ""]
)
def test_no_function_follows_a_key_that_leads_out(host: Host, key: str, use: str) -> None:
    def run() -> None:
        target = Path("/run/x")
        target.write_text("old")
        arguments = [key] if use.startswith("read") else [key, "new"]
        with pytest.raises(CniError) as caught:
            getattr(sysctl, use)(*arguments)
        assert caught.value.code == Code.INVALID_CONFIG
        assert target.read_text() == "old"

    host.call(run)


def test_the_settings_of_a_link_with_a_dot_in_its_name_are_set(host: Host) -> None:
    host.run(["ip", "link", "add", "eth0.100", "type", "veth", "peer", "eth1"])

    def run() -> None:
        for text in ("net.ipv4.conf.eth0.100.forwarding", "net/ipv4/conf/IFNAME/forwarding"):
            key = sysctl.parse_key(text, "eth0.100")
            path = Path("/proc/sys") / key
            path.write_text("0")
            assert sysctl.read_configured(key) == "0"
            assert sysctl.ensure_configured(key, "1") == "0"
            assert path.read_text() == "1\n"
            assert sysctl.ensure_configured(key, "1") is None
        with pytest.raises(CniError, match="no such file or directory") as caught:
            sysctl.ensure_configured("net/ipv4/conf/eth0.101/forwarding", "1")
        assert caught.value.code == Code.KERNEL

    host.call(run)


@pytest.mark.parametrize("place", ["a folder", "the file"])
def test_a_symbolic_link_below_net_is_not_followed(host: Host, place: str) -> None:
    """Something is mounted over the settings, which only root can do: the key still leads nowhere else."""
    host.run(["sh", "-ec", "mkdir /run/out && echo old > /run/out/forwarding"])
    host.run(["mount", "-t", "tmpfs", "tmpfs", "/proc/sys/net"])
    if place == "a folder":
        host.run(["ln", "-s", "/run/out", "/proc/sys/net/ipv4"])
        key = "net/ipv4/forwarding"
    else:
        host.run(["ln", "-s", "/run/out/forwarding", "/proc/sys/net/forwarding"])
        key = "net/forwarding"

    def run() -> None:
        with pytest.raises(CniError) as caught:
            sysctl.read_configured(key)
        assert caught.value.code == Code.INVALID_CONFIG
        with pytest.raises(CniError) as caught:
            sysctl.ensure_configured(key, "new")
        assert caught.value.code == Code.INVALID_CONFIG

    host.call(run)
    assert host.run(["cat", "/run/out/forwarding"]) == "old\n"


def test_a_pipe_in_place_of_a_setting_does_not_block(host: Host) -> None:
    host.run(["mount", "-t", "tmpfs", "tmpfs", "/proc/sys/net"])
    host.run(["mkfifo", "/proc/sys/net/pipe"])

    def run() -> None:
        assert sysctl.read_configured("net/pipe") in {"", None}
        with pytest.raises(CniError) as caught:
            sysctl.ensure_configured("net/pipe", "1")
        assert caught.value.code == Code.KERNEL

    host.call(run)


def test_no_descriptor_stays_open(host: Host) -> None:
    def run() -> None:
        with Netlink():
            before = count_descriptors()
            for key in ("net/ipv4/ip_forward", "net/ipv4/nothing", "net/nothing/x", "net/ipv4/ip_forward/x"):
                for call in (sysctl.read, sysctl.read_configured):
                    try:
                        call(key)
                    except CniError as error:
                        assert error.code == Code.INVALID_CONFIG  # noqa: PT017 - one of several
            assert count_descriptors() == before

    host.call(run)
