"""The options of `pycni run`: networks with their own options, variables, and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cni.cli import run
from cni.cli.settings import Settings
from cni.errors import CniError
from cni.runtime.connect import LAST, Wish

if TYPE_CHECKING:
    from pathlib import Path

PORT = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return settings with three networks: "plain", "ports" and "named"."""
    for name, capability in (("plain", "x"), ("ports", "portMappings"), ("named", "aliases")):
        plugins = [{"type": "a", "capabilities": {capability: True}}]
        document = {"cniVersion": "1.0.0", "name": name, "plugins": plugins}
        (tmp_path / f"{name}.conflist").write_text(json.dumps(document))
    return Settings({}, (), tmp_path, "eth0", None, None)


def test_each_network_gets_its_part(settings: Settings) -> None:
    texts = ["plain:ip=10.1.0.2,ip6=fd00::2,mac=02::1", "ports", "named:alias=a,alias=b"]
    joined = run._join(settings, texts, Wish(aliases=("c",)), ["8080:80"])  # noqa: SLF001
    assert [(network.name, wish) for network, wish in joined] == [
        ("plain", Wish(("10.1.0.2", "fd00::2"), mac="02::1")),
        ("ports", Wish(priority=LAST, ports=(PORT,))),
        ("named", Wish(aliases=("a", "b", "c"), priority=LAST)),
    ]


@pytest.mark.parametrize("word", ["host", "none"])
def test_host_and_none_stand_alone(settings: Settings, word: str) -> None:
    assert run._join(settings, [word], Wish(), None) == []  # noqa: SLF001
    with pytest.raises(CniError, match=f"--network {word} excludes other networks"):
        run._join(settings, ["plain", word], Wish(), None)  # noqa: SLF001
    for wish, ports, option in (
        (Wish(("10.1.0.2",)), None, "--ip"),
        (Wish(mac="02::1"), None, "--mac"),
        (Wish(aliases=("a",)), None, "--alias"),
        (Wish(), ["8080:80"], "--publish"),
    ):
        with pytest.raises(CniError, match=f"{option} needs a network"):
            run._join(settings, [word], wish, ports)  # noqa: SLF001


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ([], "no network was given"),
        (["nope"], "network nope not found"),
        (["plain:ipv4=1"], '"ipv4=1" is no option of a network'),
        (["plain:ip"], '"ip" is no option of a network'),
        (["plain", "named"], "no network of plain, named publishes ports"),
    ],
)
def test_mistakes_are_refused(settings: Settings, texts: list[str], reason: str) -> None:
    with pytest.raises(CniError, match=reason):
        run._join(settings, texts, Wish(), ["8080:80"])  # noqa: SLF001


def test_variables_have_names() -> None:
    assert run._variables(["A=1", "B", "C=d=e", "E="]) == {"A": "1", "C": "d=e", "E": ""}  # noqa: SLF001
    with pytest.raises(CniError, match='invalid value for --env: "=1"'):
        run._variables(["=1"])  # noqa: SLF001
