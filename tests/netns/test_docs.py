"""The plugin that docs/writing-a-plugin.md shows is a plugin."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.command import Command

if TYPE_CHECKING:
    from cni.testing import Host

pytestmark = pytest.mark.quick

PAGE = (Path(__file__).parents[2] / "docs" / "writing-a-plugin.md").read_text()


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


class Example:
    """The page's plugin and network on a host."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.host = host
        self.sandbox = host.sandbox("c1")
        self._command = Command(folder, host.bindir)
        self._plugins = folder / "own"
        self._plugins.mkdir()
        plugin = self._plugins / "extra-address"
        plugin.write_text(block("python").replace("#!/usr/bin/env python3", f"#!{sys.executable}"))
        plugin.chmod(0o755)
        self.configure(json.loads(block("json")))

    def configure(self, network: dict[str, Any]) -> None:
        self.host.run(["mkdir", "-p", "/etc/cni/net.d"])
        self.host.call(Path("/etc/cni/net.d/extra.conflist").write_text, json.dumps(network))

    def pycni(self, verb: str, *, check: bool = True) -> str:
        env = {"CNI_PATH": f"{self._plugins}:{self.host.bindir}", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        arguments = (verb, "extra", self.sandbox.path, "--json")
        return self._command.run(self.host.place, *arguments, env=env, check=check).stdout

    def repair(self, result: dict[str, Any]) -> dict[str, Any]:
        [_, plugin] = json.loads(block("json"))["plugins"]
        conf = {"cniVersion": "1.0.0", "name": "extra", "prevResult": result, **plugin}
        answer = self.host.plugin(
            "extra-address", "PYCNI_REPAIR", conf, netns=self.sandbox, bindir=self._plugins
        )
        return answer.must()


@pytest.fixture
def example(host: Host, tmp_path: Path) -> Example:
    return Example(host, tmp_path)


def test_the_example_does_what_the_page_says(example: Example) -> None:
    result = json.loads(example.pycni("add"))
    assert [ip["address"] for ip in result["ips"]] == ["10.40.0.2/24", "192.0.2.7/32", "2001:db8::7/128"]
    assert example.sandbox.addresses("eth0") == ["10.40.0.2/24", "192.0.2.7/32", "2001:db8::7/128"]
    example.pycni("check")
    example.sandbox.run(["ip", "addr", "delete", "192.0.2.7/32", "dev", "eth0"])
    told = json.loads(example.pycni("check", check=False))
    assert told["code"] == 104
    assert "192.0.2.7/32" in told["msg"]
    assert example.repair(result) == {"repaired": ["added 192.0.2.7/32 to eth0"], "failed": []}
    example.pycni("check")
    example.pycni("del")
    example.pycni("del")
    assert example.sandbox.links() == ["lo"]


def test_the_example_takes_back_what_it_did_when_it_fails(example: Example) -> None:
    network = json.loads(block("json"))
    # The kernel takes the first and refuses the second, a multicast address.
    network["plugins"].append(network["plugins"][1] | {"addresses": ["192.0.2.8/32", "ff02::1/128"]})
    example.configure(network)
    told = json.loads(example.pycni("add", check=False))
    assert "ff02::1/128" in told["msg"]
    assert example.sandbox.addresses("eth0") == ["10.40.0.2/24", "192.0.2.7/32", "2001:db8::7/128"]


def test_a_wrong_key_is_named(example: Example) -> None:
    network = json.loads(block("json"))
    network["plugins"][1]["addresses"] = ["192.0.2.7"]
    example.configure(network)
    told = json.loads(example.pycni("add", check=False))
    assert told["code"] == 7
    assert "invalid CIDR address: 192.0.2.7" in told["msg"]
