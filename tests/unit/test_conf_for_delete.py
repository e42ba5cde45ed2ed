"""DEL reads a configuration without the refused values that it does not need."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Self

import pytest
from pydantic import Field, model_validator

from cni.conf import Bool, IpamConf, Mtu, NetConf, Str, parse
from cni.errors import CniError, Code


class Ipam(IpamConf):
    """Keys of an IPAM plugin."""

    folder: Str = ""
    size: Mtu = 0


class Conf(NetConf):
    """A configuration whose DEL reads two keys."""

    delete_reads: ClassVar[frozenset[str] | None] = frozenset({"ipMasq", "ipam.folder"})

    ipam: Ipam = Field(default_factory=Ipam)
    ip_masq: Bool = False
    mtu: Mtu = 0
    first: Bool = False
    second: Bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.first and self.second:
            raise ValueError("not both")
        return self


class Strict(Conf):
    """A configuration whose DEL reads all keys."""

    delete_reads = None


def read(**keys: Any) -> Conf:
    usual = {"cniVersion": "1.1.0", "name": "net1", "type": "first", "ipMasq": True, "mtu": 1400}
    return parse(json.dumps(usual | keys).encode()).read_for_delete(Conf)


def test_a_valid_configuration_is_read_whole(capsys: pytest.CaptureFixture[str]) -> None:
    conf = read(ipam={"folder": "/x", "size": 5})
    assert (conf.mtu, conf.ip_masq, conf.ipam.folder, conf.ipam.size) == (1400, True, "/x", 5)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("value", [65536, -1, "many", 1400.5, []])
@pytest.mark.parametrize("key", ["first", "FIRST"])
def test_refused_values_are_left_out_alone(key: str, value: object) -> None:
    conf = read(**{key: "yes", "mtu": value}, second=True)
    assert (conf.mtu, conf.first, conf.second, conf.ip_masq) == (0, False, True, True)


def test_a_refused_combination_is_left_out_whole() -> None:
    conf = read(first=True, second=True)
    assert (conf.mtu, conf.first, conf.second, conf.ip_masq) == (0, False, False, True)


def test_keys_within_an_object_are_left_out_alone(capsys: pytest.CaptureFixture[str]) -> None:
    conf = read(IPAM={"Type": "second", "folder": "/x", "SIZE": -1})
    assert (conf.ipam.type, conf.ipam.folder, conf.ipam.size, conf.mtu) == ("second", "/x", 0, 1400)
    assert "DEL ignores values that ADD refuses: ipam.SIZE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("keys", "code", "path"),
    [
        ({"ipMasq": "true"}, Code.INVALID_CONFIG, "ipMasq"),
        ({"IPMASQ": 1, "mtu": -1}, Code.INVALID_CONFIG, "ipMasq"),
        ({"ipam": {"folder": 7}}, Code.INVALID_CONFIG, "ipam.folder"),
        ({"ipam": {"type": 7}}, Code.DECODING_FAILURE, "ipam.type"),
        ({"ipam": "second"}, Code.DECODING_FAILURE, "ipam"),
        ({"dns": 1}, Code.DECODING_FAILURE, "dns"),
        ({"args": "x"}, Code.INVALID_CONFIG, "args"),
    ],
)
def test_del_refuses_wrong_values_that_it_needs(keys: dict[str, Any], code: Code, path: str) -> None:
    with pytest.raises(CniError) as caught:
        read(**keys)
    assert caught.value.code == code
    assert f'"{path}" must be ' in caught.value.msg


def test_a_plugin_that_names_no_keys_refuses_as_add_does() -> None:
    with pytest.raises(CniError, match='"mtu" must be'):
        parse(b'{"name": "net1", "mtu": -1}').read_for_delete(Strict)


def test_only_del_is_tolerant() -> None:
    given = parse(b'{"name": "net1", "mtu": -1}')
    assert given.read_for_delete(Conf).mtu == 0
    with pytest.raises(CniError, match='"mtu" must be'):
        given.read(Conf)
