"""`pycni dns query` and `pycni show`: the names that the server answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.names_world import Network
from tests.support.command import Command

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")


def test_a_query_is_asked_as_a_container(host: Host, tmp_path: Path) -> None:
    command = Command(tmp_path, host.bindir)

    def run(*arguments: str) -> tuple[int, str, str]:
        done = command.run(host.place, "dns", "query", *arguments, check=False)
        return done.returncode, done.stdout, done.stderr

    assert run("web")[0] == 1
    first, second = Network(host, 1), Network(host, 2)
    web, other = first.attach("web"), second.attach("other", container_id="other-id")
    lines = "".join(f"{each}\n" for each in other.addresses)
    assert run("other.net2.test") == (0, lines, "")
    assert run("other", "--as", "other") == (0, lines, "")
    assert run("OTHER.", "--as", "other-i") == (0, lines, "")
    # A container on another network gets no answer.
    assert run("other", "--as", "web") == (1, "", "")
    shown = json.loads(run("web", "--as", "web", "--json")[1])
    assert shown == {
        "name": "web",
        "server": "10.1.0.1",
        "as": "web",
        "rcode": 0,
        "addresses": web.addresses,
    }
    assert 'no container with names match "nobody"' in run("web", "--as", "nobody")[2]
    assert "cannot be a name" in run("a b")[2]


def test_names_are_shown(host: Host, tmp_path: Path) -> None:
    net = Network(host)
    conf = {"cniVersion": "1.0.0", "name": "net1"}
    plugins = [{key: each[key] for key in each if key not in conf} for each in (net.bridge, net.conf)]
    plugins[1]["capabilities"] = {"aliases": True}
    host.run(["mkdir", "-p", "/etc/cni/net.d"])
    host.run(["cp", "/dev/stdin", "/etc/cni/net.d/net1.conflist"], json.dumps(conf | {"plugins": plugins}))
    command, sandbox = Command(tmp_path, host.bindir), host.sandbox("c1")
    env = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=web",
        "CAP_ARGS": json.dumps({"aliases": {"net1": ["www"]}}),
    }
    command.run(host.place, "add", "net1", sandbox.path, env=env)
    [shown] = json.loads(command.run(host.place, "show", "--json", env=env).stdout)["networks"]
    [attachment] = shown["attachments"]
    assert attachment["names"][:2] == ["web", "www"]
    assert "names: web, www" in command.run(host.place, "show", env=env).stdout
    assert command.run(host.place, "check", "net1", sandbox.path, env=env).returncode == 0
    assert command.run(host.place, "del", "net1", sandbox.path, env=env).returncode == 0
