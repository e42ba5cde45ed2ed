"""A worker imports nothing: what a call needs was there when the server forked it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.warm.conftest import WarmHost

BASE = {"cniVersion": "1.1.0", "name": "n"}
IPAM = {"type": "host-local", "subnet": "10.1.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}
PORTS = {"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "udp"}]}


def chain(backend: str) -> list[dict[str, Any]]:
    bridge = {"isGateway": True, "ipMasq": True, "ipMasqBackend": backend, "macspoofchk": True, "ipam": IPAM}
    return [
        BASE | {"type": "loopback"},
        BASE | {"type": "bridge"} | bridge,
        BASE | {"type": "portmap", "backend": backend, "runtimeConfig": PORTS},
    ]


def test_no_verb_of_any_plugin_imports_a_module(warm_host: WarmHost) -> None:
    known = set(warm_host.facts()["modules"].split())
    assert {"cni_portmap.add", "cni_host_local_ipam.delete", "subprocess"} <= known
    sandbox = warm_host.sandbox("c1")
    for backend in ("nftables", "iptables"):
        previous: dict[str, Any] = {}
        for verb in ("STATUS", "ADD", "CHECK", "DEL", "GC"):
            for conf in chain(backend):
                asked = conf | previous | ({"cni.dev/valid-attachments": []} if verb == "GC" else {})
                answer = warm_host.plugin(conf["type"], verb, asked, netns=sandbox).must()
                if verb == "ADD" and conf["type"] != "loopback":
                    previous = {"prevResult": answer}
    for _ in range(8):
        assert set(warm_host.facts()["modules"].split()) - known == set()
    assert warm_host.status()["workers_made"] <= 8
