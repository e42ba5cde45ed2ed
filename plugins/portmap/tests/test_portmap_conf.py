"""Which configurations portmap takes, and what it says to others."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from cni.conf import read
from cni.errors import CniError
from cni_portmap.conf import PortmapConf

REFUSED = json.loads(Path(__file__).with_name("data").joinpath("refused.json").read_text())


def _read(conf: dict[str, Any], mappings: list[dict[str, Any]] | None = None) -> PortmapConf:
    return read(PortmapConf, {"name": "net1", "runtimeConfig": {"portMappings": mappings}, **conf})


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case["what"])
def test_a_configuration_is_refused_in_words(case: dict[str, Any]) -> None:
    with pytest.raises(CniError) as refusal:
        _read(case.get("conf", {}), case.get("mappings"))
    assert refusal.value.code == 7
    assert refusal.value.msg == case["msg"]


def test_defaults_are_those_of_go() -> None:
    conf = _read({})
    assert (conf.snat, conf.masq_all, conf.mark_bit, conf.needed_backend) == (True, False, 13, "")
    assert conf.runtime_config.port_mappings == ()


def test_keys_of_mappings_match_in_any_case() -> None:
    given = {"HostPort": 8080, "ContainerPort": 80, "Protocol": "TCP", "HostIP": ""}
    [mapping] = _read({}, [given]).runtime_config.port_mappings
    assert (mapping.host_port, mapping.container_port, mapping.protocol) == (8080, 80, "tcp")
    assert mapping.host_ip is None


@pytest.mark.parametrize(("text", "address"), [("::1", "::1"), ("::ffff:10.1.1.1", "10.1.1.1")])
def test_a_host_ip_is_read_as_an_address(text: str, address: str) -> None:
    given = {"hostPort": 1, "containerPort": 65535, "protocol": "udp", "hostIP": text}
    [mapping] = _read({}, [given]).runtime_config.port_mappings
    assert mapping.host_ip == ip_address(address)


@pytest.mark.parametrize(
    ("conf", "backend"),
    [
        ({"conditionsV4": ["!", "-d", "10.0.0.1"]}, "iptables"),
        ({"conditionsV6": ["ip6", "saddr", "::1"]}, "nftables"),
        ({"externalSetMarkChain": "KUBE-MARK-MASQ"}, "iptables"),
        ({"markMasqBit": 3}, ""),
        ({"conditionsV4": []}, ""),
        ({"backend": "nftables", "markMasqBit": 3}, "nftables"),
    ],
)
def test_options_of_one_backend_ask_for_it(conf: dict[str, Any], backend: str) -> None:
    assert _read(conf).needed_backend == backend
