"""Intents of the nftables backend for tests, made and looked at on a host of its own."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING, Any

import pytest

from cni.errors import CniError
from cni.firewall.intents import Masquerade, Owner, PortForward, PortMapping
from cni.firewall.nftables.backend import Nftables
from cni.undo import Undo

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.testing import Host

BACKEND = Nftables()
WEB = PortMapping("tcp", 8080, 80)
DNS = PortMapping("udp", 5353, 53, ip_address("10.1.1.1"))
TLS = PortMapping("tcp", 8443, 443, ip_address("2001:db8::1"))


def owner_of(container_id: str = "cid1", ifname: str = "eth0", network: str = "net1") -> Owner:
    return Owner(network, container_id, ifname)


def targets_of(number: int = 2) -> Any:
    return (ip_interface(f"10.22.0.{number}/16"), ip_interface(f"fd00:22::{number}/64"))


def forward(
    *mappings: PortMapping, owner: Owner | None = None, number: int = 2, **options: Any
) -> PortForward:
    return PortForward(owner or owner_of(), mappings or (WEB, DNS, TLS), targets_of(number), **options)


def masquerade(owner: Owner | None = None, number: int = 2) -> Masquerade:
    return Masquerade(owner or owner_of(), targets_of(number))


def add(host: Host, intent: PortForward | Masquerade) -> None:
    host.call(add_here, intent)


def add_here(intent: PortForward | Masquerade) -> None:
    with Undo() as undo:
        if isinstance(intent, PortForward):
            BACKEND.apply(intent, undo)
        else:
            BACKEND.apply(intent, undo)


def refused(host: Host, step: Callable[[], object]) -> tuple[str, int, str]:
    """Run a function that must raise a CniError. Return its class, code and text."""

    def inside() -> tuple[str, int, str]:
        with pytest.raises(CniError) as caught:
            step()
        return type(caught.value).__name__, caught.value.code, str(caught.value)

    return host.call(inside)


def elements(host: Host) -> dict[str, list[Any]]:
    """Return all elements of our tables by "family set", as nft shows them, without comments."""
    shown = host.json(["nft", "-j", "list", "ruleset"])["nftables"]
    found: dict[str, list[Any]] = {}
    for item in shown:
        for kind in ("map", "set"):
            elements = item.get(kind, {}).get("elem", [])
            if elements and item[kind]["table"] == "pycni" and item[kind]["name"] != "records":
                found[f"{item[kind]['family']} {item[kind]['name']}"] = sorted(map(_plain, elements), key=str)
    return found


def _plain(element: Any) -> Any:
    if isinstance(element, list):
        return [_plain(each) for each in element]
    if isinstance(element, dict):
        [(kind, value)] = element.items()
        return _plain(value["val"]) if kind == "elem" else _plain(value)
    return element
