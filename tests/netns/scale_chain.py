"""The chain bridge, host-local, portmap in the calling process, as a worker of the warm server runs it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from cni import multicall
from cni.kernel import background
from cni.testing.place import BARE_ENV
from plugin_table import declared, packages
from tests.netns.scale_meter import least
from tests.support import scene

if TYPE_CHECKING:
    from pathlib import Path

    from tests.netns.scale_meter import Cost, Meter

VERBS = ("ADD", "DEL")
NETWORK = {"cniVersion": "1.0.0", "name": "scale"}
_TABLE = packages(declared())
_FIRST_PORT = 10_000
# How many links of the filling share a namespace; those that are measured have one of their own.
_LINKS_IN_NETNS = 50
_ROUNDS = 4

Costs = dict[tuple[str, str], "Cost"]


class Container(NamedTuple):
    """A container by number, and the namespace and the interface of its attachment."""

    number: int
    netns: str
    ifname: str = "eth0"

    @property
    def env(self) -> dict[str, str]:
        """Return the environment of a plugin for this container."""
        return {
            "CNI_CONTAINERID": f"c{self.number}",
            "CNI_NETNS": f"/run/netns/{self.netns}",
            "CNI_IFNAME": self.ifname,
        }


def call(bindir: Path, verb: str, conf: dict[str, Any], container: Container) -> bytes:
    """Run the plugin that `conf` names, and fail the test when it fails. Return its output."""
    env = {**BARE_ENV, **container.env, "PYCNI_DEL": "gone", "CNI_COMMAND": verb, "CNI_PATH": str(bindir)}
    program = bindir / conf["type"]
    status, said = multicall.run_delegate(str(program), _TABLE, program, env, json.dumps(conf).encode())
    # As a worker does before the next call.
    assert background.wait(10)
    assert status == 0, said
    return said


def shared_netns(number: int) -> str:
    """Name the namespace of a container of the filling."""
    return f"fill{number // _LINKS_IN_NETNS}"


def namespaces(attachments: int) -> list[str]:
    """Name all namespaces that `Chain` uses when it fills up to so many attachments."""
    filling = dict.fromkeys(shared_netns(number) for number in range(attachments))
    return [*filling, *(f"own{turn}" for turn in range(_ROUNDS))]


class Chain:
    """Attachments made in this process: those of the filling stay, those of `measure` come and go.

    `there` is how many of the filling another process has made.
    """

    def __init__(self, bindir: Path, backend: str, there: int = 0) -> None:
        self._bindir = bindir
        self._backend = backend
        self._there = there
        self._next = 20_000

    def fill(self, attachments: int) -> None:
        """Add attachments until there are this many."""
        while self._there < attachments:
            ifname = f"eth{self._there % _LINKS_IN_NETNS}"
            self._add(Container(self._there, shared_netns(self._there), ifname))
            self._there += 1

    def measure(self, meter: Meter) -> Costs:
        """Attach and detach a container some times. Return the costs of each verb of each plugin."""
        rounds = [self._round(meter, f"own{turn}") for turn in range(_ROUNDS)]
        # The first one is the first of this process, or after something has changed.
        return {key: least([each[key] for each in rounds[1:]]) for key in rounds[0]}

    def _round(self, meter: Meter, netns: str) -> Costs:
        container = Container(self._next, netns)
        self._next += 1
        costs: Costs = {}
        result = self._add(container, meter, costs)
        for conf in reversed(self._confs(container)):
            meter.read()
            call(self._bindir, "DEL", conf | {"prevResult": result}, container)
            costs["DEL", conf["type"]] = meter.read()
        return costs

    def _add(
        self, container: Container, meter: Meter | None = None, costs: Costs | None = None
    ) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for conf in self._confs(container):
            given = conf | ({"prevResult": result} if result else {})
            if meter is not None:
                meter.read()
            said = call(self._bindir, "ADD", given, container)
            if meter is not None and costs is not None:
                costs["ADD", conf["type"]] = meter.read()
            result = json.loads(said)
        return result

    def _confs(self, container: Container) -> list[dict[str, Any]]:
        ipam = {"type": scene.IPAM, "ranges": [[{"subnet": "10.22.0.0/16"}]]}
        bridge = {
            "type": scene.INTERFACE,
            "bridge": "scale0",
            "isGateway": True,
            "ipMasq": True,
            "ipam": ipam,
        }
        mapping = {"hostPort": _FIRST_PORT + container.number, "containerPort": 80, "protocol": "tcp"}
        portmap = {"type": scene.PORTS, "runtimeConfig": {"portMappings": [mapping]}}
        return [
            NETWORK | bridge | {"ipMasqBackend": self._backend},
            NETWORK | portmap | {"backend": self._backend},
        ]
