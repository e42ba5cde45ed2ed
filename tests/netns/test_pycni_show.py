"""`pycni show` on real attachments, made by our plugins and by the Go plugins."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import GO
from cni.testing.place import CommandError
from tests.support import scene
from tests.support.command import Command

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")

C1 = "cnitool-20b4ff582526573bbe7d"
C2 = "cnitool-91c761e9aa179d96eabf"
PORTS = [
    {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
    {"HostPort": 5353, "ContainerPort": 53, "Protocol": "UDP", "HostIP": "::1"},
]
WEB = {
    "cniVersion": "1.0.0",
    "name": "web",
    "plugins": [
        {
            "type": scene.INTERFACE,
            "bridge": "web0",
            "isGateway": True,
            "mtu": 1400,
            "ipam": {
                "type": scene.IPAM,
                "ranges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd09::/64"}]],
            },
        },
        scene.ports(),
    ],
}


class Shown:
    """The command on a host with the network `web` and the sandboxes c1 and c2."""

    def __init__(self, host: Host, folder: Path, bindir: Path) -> None:
        self.host = host
        self._command = Command(folder, bindir)
        host.run(["mkdir", "-p", "/etc/cni/net.d"])
        host.run(["cp", "/dev/stdin", "/etc/cni/net.d/10-web.conflist"], json.dumps(WEB))
        for name in ("c1", "c2"):
            host.sandbox(name)

    def run(self, *arguments: str, **env: str) -> str:
        """Run the command and give what it printed."""
        path = "/usr/sbin:/usr/bin:/sbin:/bin"
        return self._command.run(self.host.place, *arguments, env={"PATH": path, **env}).stdout

    def web(self) -> dict[str, Any]:
        """Return what `pycni show` prints for the network."""
        [network] = json.loads(self.run("show", "--json"))["networks"]
        assert isinstance(network, dict)
        return network


@pytest.fixture(params=["ours", "go"])
def shown(request: pytest.FixtureRequest, host: Host, tmp_path: Path) -> Shown:
    if request.param == "go" and not (GO / scene.PORTS).exists():
        pytest.skip("the Go plugins are not installed")
    return Shown(host, tmp_path, GO if request.param == "go" else host.bindir)


@pytest.fixture
def ours(host: Host, tmp_path: Path) -> Shown:
    return Shown(host, tmp_path, host.bindir)


def test_everything_of_an_attachment_is_shown(shown: Shown) -> None:
    shown.run("add", "web", "/run/netns/c1", CAP_ARGS=json.dumps({"portMappings": PORTS}))
    web = shown.web()
    assert web["subnets"] == ["10.9.0.0/24", "fd09::/64"]
    [bridge] = web["bridges"]
    assert (bridge["name"], bridge["exists"], bridge["up"]) == ("web0", True, True)
    assert bridge["addresses"] == ["10.9.0.1/24", "fd09::1/64"]
    [attached] = web["attachments"]
    [kernel] = shown.host.json(["ip", "-n", "c1", "-j", "addr", "show", "eth0"])
    assert attached["containerID"] == C1
    assert attached["netnsState"] == "alive"
    assert attached["addresses"] == ["10.9.0.2/24", "fd09::2/64"]
    assert attached["mac"] == kernel["address"]
    assert attached["mtu"] == 1400
    assert attached["hostLink"]["name"] in shown.host.links()
    assert attached["hostLink"]["master"] == "web0"
    assert attached["ports"] == [
        {"protocol": "tcp", "hostIP": "", "hostPort": 8080, "containerPort": 80},
        {"protocol": "udp", "hostIP": "::1", "hostPort": 5353, "containerPort": 53},
    ]
    assert attached["problems"] == []


def test_the_tree_has_a_line_for_each_thing(ours: Shown) -> None:
    ours.run("add", "web", "/run/netns/c1", CAP_ARGS=json.dumps({"portMappings": PORTS}))
    host_end = ours.web()["attachments"][0]["hostLink"]["name"]
    lines = ours.run("show").splitlines()
    assert lines[0] == "web  1.0.0  10.9.0.0/24, fd09::/64  /etc/cni/net.d/10-web.conflist"
    assert lines[1] == "└── bridge  web0  10.9.0.1/24 fd09::1/64  up"
    assert lines[2] == f"    └── {C1}  /run/netns/c1  netns alive"
    assert lines[3].startswith("        └── eth0  10.9.0.2/24 fd09::2/64  ")
    assert lines[3].endswith(f"  mtu 1400  host end {host_end}")
    assert lines[4:] == [
        "            ├── tcp *:8080 -> 80",
        "            └── udp [::1]:5353 -> 53",
    ]


def test_a_picture_is_drawn_beside_the_tree(ours: Shown) -> None:
    ours.run("add", "web", "/run/netns/c1", CAP_ARGS=json.dumps({"portMappings": PORTS}))
    assert ours.run("show", "--picture", "/run/web.svg").splitlines()[0].startswith("web  1.0.0")
    picture = ours.host.run(["cat", "/run/web.svg"])
    for part in (">bridge web0<", ">10.9.0.1/24<", f">{C1}<", ">eth0 10.9.0.2/24 fd09::2/64<", ">host:8080 "):
        assert picture.count(part) == 1, part
    assert ours.host.call(os.stat, "/run/web.svg").st_mode & 0o777 == 0o644
    with pytest.raises(CommandError, match="/run/none"):
        ours.run("show", "--picture", "/run/none/web.svg")


def test_two_links_of_a_container_hang_on_one_line(ours: Shown) -> None:
    for ifname in ("eth0", "net1"):
        ours.run("add", "web", "/run/netns/c1", "-i", ifname)
    lines = [line.lstrip(" │├└─").split()[0] for line in ours.run("show").splitlines()]
    assert lines == ["web", "bridge", C1, "eth0", "net1"]


def test_show_reports_differences_from_the_state_after_add(ours: Shown) -> None:
    for name in ("c1", "c2"):
        ours.run("add", "web", f"/run/netns/{name}")
    ours.host.run(["ip", "-n", "c1", "addr", "del", "10.9.0.2/24", "dev", "eth0"])
    ours.host.run(["ip", "-n", "c1", "link", "set", "eth0", "down"])
    ours.host.run(["ip", "netns", "delete", "c2"])
    one, two = ours.web()["attachments"]
    assert one["problems"][:2] == ["link eth0 is down", "address 10.9.0.2/24 is missing"]
    assert (two["containerID"], two["netnsState"], two["addresses"]) == (
        C2,
        "gone",
        ["10.9.0.3/24", "fd09::3/64"],
    )
    assert two["problems"][0] == "the network namespace is gone: run pycni del or pycni gc"
    ours.host.run(["ip", "-n", "c1", "link", "del", "eth0"])
    assert ours.web()["attachments"][0]["problems"] == ["link eth0 is missing"]


def test_gc_of_the_dead_leaves_the_living(ours: Shown) -> None:
    for name in ("c1", "c2"):
        ours.run("add", "web", f"/run/netns/{name}")
    ours.host.run(["ip", "netns", "delete", "c2"])
    ours.run("gc", "web", "--dead-only")
    [left] = ours.web()["attachments"]
    assert (left["containerID"], left["problems"]) == (C1, [])
    assert ours.host.run(["ls", "/var/lib/cni/networks/web"]).split()[:2] == ["10.9.0.2", "fd09::2"]


def test_a_lease_without_a_cached_result_is_shown(ours: Shown) -> None:
    ours.run("add", "web", "/run/netns/c1")
    ours.host.run(["sh", "-c", "rm /var/lib/cni/results/*"])
    [attached] = ours.web()["attachments"]
    assert (attached["containerID"], attached["ifname"]) == (C1, "eth0")
    assert attached["addresses"] == ["10.9.0.2", "fd09::2"]
    [problem] = attached["problems"]
    assert problem.startswith("no result is cached: its ADD failed or still runs")


def test_strange_files_in_the_cache_do_no_harm(ours: Shown) -> None:
    ours.run("add", "web", "/run/netns/c1")
    entry = {"kind": "cniCacheV1", "containerId": "c9", "ifName": "eth0", "networkName": "gone", "config": ""}
    odd = [
        "[]",
        json.dumps(entry | {"netns": "/etc/passwd", "result": {"ips": 7}}),
        json.dumps(
            entry | {"capabilityArgs": {"portMappings": [7, {"hostPort": "x"}]}, "containerId": "c\x1b[2J"}
        ),
    ]
    for number, text in enumerate(odd):
        ours.host.run(["cp", "/dev/stdin", f"/var/lib/cni/results/odd-{number}"], text)
    names = [each["name"] for each in json.loads(ours.run("show", "--json"))["networks"]]
    assert names == ["gone", "web"]
    assert "\x1b" not in ours.run("show")


def test_del_leaves_nothing_of_an_attachment(shown: Shown) -> None:
    published = json.dumps({"portMappings": PORTS[:1]})
    # Bridge and shared chains come with the first and stay.
    shown.run("add", "web", "/run/netns/c2", CAP_ARGS=published.replace("8080", "8081"))
    before = shown.host.snapshot()
    shown.run("add", "web", "/run/netns/c1", CAP_ARGS=published)
    shown.run("del", "web", "/run/netns/c1")
    assert before.differences(shown.host.snapshot()) == []
    assert [each["containerID"] for each in shown.web()["attachments"]] == [C2]
