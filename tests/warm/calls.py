"""Calls of every plugin: those of a container's life, and those with something wrong."""

from __future__ import annotations

from typing import Any

BASE: dict[str, Any] = {"cniVersion": "1.1.0", "name": "net1"}
IPAM = {
    "type": "host-local",
    "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd01::/64"}]],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
}
PORTS = [{"hostPort": 8080, "containerPort": 80, "protocol": each} for each in ("tcp", "udp")]
NONE_VALID: dict[str, Any] = {"cni.dev/valid-attachments": []}


def chain(backend: str) -> list[dict[str, Any]]:
    """Give the configurations of a network of loopback, bridge with host-local, and portmap."""
    bridge = {"bridge": "br0", "isDefaultGateway": True, "ipMasq": True, "ipMasqBackend": backend}
    return [
        BASE | {"type": "loopback"},
        BASE | {"type": "bridge", "macspoofchk": True, "ipam": IPAM} | bridge,
        BASE | {"type": "portmap", "backend": backend, "runtimeConfig": {"portMappings": PORTS}},
    ]


VERBS = ("STATUS", "ADD", "CHECK", "PYCNI_REPAIR", "PYCNI_GC_PLAN", "DEL", "GC", "VERSION")
LOOPBACK, BRIDGE, PORTMAP = chain("nftables")
# What is wrong: plugin, verb, configuration or text, and what else is different.
WRONG: dict[str, tuple[str, str, dict[str, Any] | str, dict[str, Any]]] = {
    "no JSON": ("bridge", "ADD", "{", {}),
    "no object": ("portmap", "DEL", "[]", {}),
    "nothing": ("host-local", "CHECK", "", {}),
    "no name": ("loopback", "ADD", {"cniVersion": "1.0.0"}, {}),
    "a name that is a path": ("bridge", "DEL", BRIDGE | {"name": "../x"}, {}),
    "another version": ("bridge", "ADD", BRIDGE | {"cniVersion": "8.0.0"}, {}),
    "a verb of a later version": ("bridge", "STATUS", BRIDGE | {"cniVersion": "0.4.0"}, {}),
    "a word for a number": ("bridge", "ADD", BRIDGE | {"mtu": "many"}, {}),
    "a number for a list": ("portmap", "ADD", PORTMAP | {"runtimeConfig": {"portMappings": 5}}, {}),
    "a subnet that is none": (
        "host-local",
        "ADD",
        BASE | {"ipam": {"ranges": [[{"subnet": "x"}]]}},
        {},
    ),
    "an IPAM that is not there": ("bridge", "ADD", BRIDGE | {"ipam": {"type": "none"}}, {}),
    "no result before": ("portmap", "CHECK", PORTMAP, {}),
    "a result that is none": ("bridge", "CHECK", BRIDGE | {"prevResult": {"ips": 3}}, {}),
    "a result of nothing": (
        "bridge",
        "CHECK",
        BRIDGE | {"prevResult": {"ips": []}},
        {},
    ),
    "no namespace": ("bridge", "ADD", BRIDGE, {"netns": "/run/netns/none"}),
    "a file for a namespace": ("loopback", "ADD", LOOPBACK, {"netns": "/run/netns/file"}),
    "the host's namespace": ("bridge", "ADD", BRIDGE, {"netns": "/proc/self/ns/net"}),
    "no verb": ("bridge", "", BRIDGE, {}),
    "another verb": ("bridge", "MEND", BRIDGE, {}),
    "no variables": ("bridge", "ADD", BRIDGE, {"env": {"CNI_IFNAME": "", "CNI_CONTAINERID": ""}}),
    "an ID that is a path": ("host-local", "ADD", BASE | {"ipam": IPAM}, {"container_id": "../c"}),
    "a long name": ("bridge", "ADD", BRIDGE, {"ifname": "interface0123456"}),
    "arguments of another kind": ("bridge", "ADD", BRIDGE, {"args": "MAC"}),
}
