"""Which unknown keys look like a known one."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from cni import misspelt, skel
from cni.conf import SPEC_KEYS, NetConf, Unread, parse
from cni.plugin import Plugin
from cni.result import Result

BRIDGE_KEYS = frozenset(
    {"bridge", "isGateway", "isDefaultGateway", "forceAddress", "ipMasq", "ipMasqBackend", "mtu", "vlan"}
)


class Conf(NetConf):
    """A configuration with some keys."""

    bridge: str = "cni0"
    is_gateway: bool = False


PLUGIN = Plugin("first", "a plugin", Conf, lambda *_: Result(), lambda *_: None)


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("brige", "bridge"),
        ("brdige", "bridge"),
        ("isGatway", "isGateway"),
        ("is_gateway", "isGateway"),
        ("is-gateway", "isGateway"),
        ("ipMask", "ipMasq"),
        ("ipMasqBackned", "ipMasqBackend"),
        ("isDefaultGatway", "isDefaultGateway"),
        ("mtuu", "mtu"),
        ("vlans", "vlan"),
        ("", ""),
        ("x", ""),
        ("mt", ""),
        ("keyA", ""),
        ("master", ""),
        ("log_level", ""),
        ("promiscuous", ""),
        ("gateway", ""),
        ("b" * 100_000, ""),
    ],
)
def test_the_nearest_key(key: str, near: str) -> None:
    assert misspelt.find_near(key, BRIDGE_KEYS) == near


@pytest.mark.parametrize("key", ["capabilties", "prevResults", "runtimeConf", "arg", "cniVerson", "ipma"])
def test_keys_of_the_spec_are_known_to_all(key: str) -> None:
    assert misspelt.find_near(key, SPEC_KEYS)


def test_a_sentence_has_no_line_break_of_the_key() -> None:
    [told] = misspelt.explain([Unread("", "brid\nge", BRIDGE_KEYS)])
    assert told == 'unknown key "brid\\nge" has no effect, did you mean "bridge"?'


def unread(**keys: Any) -> list[str]:
    given = parse(json.dumps({"cniVersion": "1.0.0", "name": "net", "type": "first", **keys}).encode())
    return [each.key for each in given.list_unread(Conf, "first")]


def test_other_spellings_of_known_keys_are_read() -> None:
    assert unread(BRIDGE="x", Capabilities={"mac": True}, PREVRESULT={}, IsGateway=True) == []
    assert unread(brige="x", args={"cni": {"brige": 1}}, runtimeConfig={"brige": 1}) == ["brige"]
    assert unread(dns={"nameserver": []}) == ["nameserver"]


def call(verb: str, conf: dict[str, Any]) -> tuple[int, str]:
    env = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/n",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/opt",
    }
    out = io.BytesIO()
    return skel.run(lambda: PLUGIN, env, io.BytesIO(json.dumps(conf).encode()), out), out.getvalue().decode()


@pytest.mark.parametrize("version", ["0.1.0", "0.3.1", "1.1.0"])
def test_the_command_answers_in_every_version(version: str, capsys: pytest.CaptureFixture[str]) -> None:
    conf = {"cniVersion": version, "name": "net", "type": "first", "brige": "x", "ipam": {"typ": "x"}}
    status, printed = call("PYCNI_LINT", conf)
    assert status == 0
    assert json.loads(printed)["warnings"] == [
        'unknown key "brige" has no effect, did you mean "bridge"?',
        'unknown key "ipam.typ" has no effect, did you mean "type"?',
    ]
    assert capsys.readouterr().err == ""
    call("ADD", conf)
    assert [line[:27] for line in capsys.readouterr().err.splitlines()] == ['first: network "net": unkno'] * 2


def test_an_ipam_plugin_leaves_the_keys_of_its_caller_alone() -> None:
    _, printed = call("PYCNI_LINT", {"name": "net", "type": "second", "brige": 1, "ipam": {"type": "first"}})
    assert json.loads(printed) == {"warnings": []}


@pytest.mark.parametrize("verb", ["PYCNI_CHECK", "PYCNI_GC", "PYCNI_STATUS"])
@pytest.mark.parametrize("version", ["0.1.0", "0.3.1", "0.4.0", "1.1.0"])
def test_verbs_of_the_spec_without_its_minimum_version(verb: str, version: str) -> None:
    conf = {"cniVersion": version, "name": "net", "type": "first", "prevResult": {"cniVersion": version}}
    status, printed = call(verb, conf)
    assert status == 0
    assert list(json.loads(printed)) == ["pycni"]
    status, printed = call(verb, conf | {"cniVersion": "9.9.9"})
    assert (status, json.loads(printed)["code"]) == (1, 1)
