"""Lists of clients that would keep the host busy for minutes are refused; pure."""

from __future__ import annotations

from typing import Any

import pytest

from cni.conf import read
from cni.errors import CniError
from cni_portmap.conf import PortmapConf


def conf(ports: int, clients: int, **keys: Any) -> dict[str, Any]:
    networks = [f"10.{number >> 8}.{number & 255}.0/24" for number in range(clients)]
    mapping: dict[str, Any] = {"containerPort": 80, "protocol": "tcp"}
    if not keys:
        mapping["allowFrom"] = networks
    keys = dict.fromkeys(keys, networks)
    mappings = [mapping | {"hostPort": 8000 + number} for number in range(ports)]
    runtime = {"portMappings": mappings}
    return {"cniVersion": "1.1.0", "name": "n", "type": "portmap", "runtimeConfig": runtime, **keys}


@pytest.mark.parametrize("keys", [{}, {"allowFrom": True}], ids=["of each port", "of the network"])
def test_the_number_of_clients_of_all_ports_is_limited(keys: dict[str, Any]) -> None:
    assert len(read(PortmapConf, conf(50, 100, **keys)).runtime_config.port_mappings) == 50
    for ports, clients in ((1, 5001), (51, 100)):
        with pytest.raises(CniError) as caught:
            read(PortmapConf, conf(ports, clients, **keys))
        number = ports * clients
        assert caught.value.code == 7
        assert f"allowFrom has {number} entries for all ports together, at most 5000" in caught.value.msg
