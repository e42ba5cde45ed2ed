"""Rounds of ADD, CHECK and DEL of networks as projects use them: those of networks.json.

Each has its title, its plugins in words, the least ratios to Go by verb and backend, and its chain. `before`
are plugins that attach the container and are not measured; `master` is a link of the host to be made.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench import chain
from bench.containers import CONTAINER_PORT, FIRST_PORT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.sides import Side
    from bench.stage import Stage

_FILE = Path(__file__).with_name("networks.json")
_VERSION, _NAME, _PORTS = "1.0.0", "listed", "portMappings"
_BACKEND_KEY = "backendKey"


class Network(NamedTuple):
    """A network of the file."""

    title: str
    plugins: str
    least: Mapping[str, Mapping[str, float]]
    chain: tuple[Mapping[str, Any], ...]
    before: tuple[Mapping[str, Any], ...] = ()
    master: str = ""

    @property
    def has_backend(self) -> bool:
        """Return whether a plugin of the chain writes firewall rules."""
        return any(_BACKEND_KEY in each for each in self.chain)


def read() -> list[Network]:
    """Return the networks of the file."""
    return [Network(**each) for each in json.loads(_FILE.read_text())]


@dataclass(frozen=True)
class Member:
    """A container of a network, by number, and the part of the chain to call for it."""

    number: int
    entries: Sequence[Mapping[str, Any]] = field(compare=False)

    @property
    def netns(self) -> str:
        """Return the name of its namespace."""
        return f"n{self.number}"

    @property
    def env(self) -> dict[str, str]:
        """Return the environment of a plugin for this container."""
        return {
            "CNI_CONTAINERID": f"n{self.number}",
            "CNI_NETNS": f"/run/netns/{self.netns}",
            "CNI_IFNAME": "eth0",
        }

    def confs(self, side: Side) -> Iterator[dict[str, Any]]:
        """Yield the configurations that the runtime gives to the plugins."""
        for entry in self.entries:
            conf = {"cniVersion": _VERSION, "name": _NAME, **entry["conf"]}
            if _PORTS in conf.pop("capabilities", {}):
                port = FIRST_PORT + self.number
                mapping = {"hostPort": port, "containerPort": CONTAINER_PORT, "protocol": "tcp"}
                conf["runtimeConfig"] = {_PORTS: [mapping]}
            if side.backend and _BACKEND_KEY in entry:
                conf[entry[_BACKEND_KEY]] = side.backend
            yield conf


class Listed:
    """Rounds of one network on one side's host."""

    def __init__(self, stage: Stage, network: Network) -> None:
        self._stage = stage
        self._network = network
        self._next = 0
        if network.master:
            peer = f"{network.master}p"
            stage.host.run(["ip", "link", "add", network.master, "type", "veth", "peer", "name", peer])
            for name in (network.master, peer):
                stage.host.run(["ip", "link", "set", name, "up"])

    def round(self) -> dict[str, float]:
        """Attach, check and detach a container in a fresh namespace. Return the seconds of each verb."""
        number, network, stage = self._next, self._network, self._stage
        self._next += 1
        first, own = Member(number, network.before), Member(number, network.chain)
        side = stage.side
        stage.ensure_namespaces([own.netns])
        before: Mapping[str, Any] = {}
        if network.before:
            _, of_first = stage.call(chain.add, side, [first])
            [before] = of_first.values()
        added, results = stage.call(chain.add, side, [own], before)
        checked = stage.call(chain.check, side, results)
        deleted = stage.call(chain.delete, side, results)
        if network.before:
            stage.call(chain.delete, side, of_first)
        stage.remove_namespaces([own.netns])
        return {"ADD": added, "CHECK": checked, "DEL": deleted}
