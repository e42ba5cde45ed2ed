"""Rounds of names: ADD until the name is answered, the CPU time of a query, DEL until it is not.

`names.json` has the plugin, its configuration and the least ratios to Go by names there and verb. Debian has
the Go plugin in a package of its own; it starts dnsmasq.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.calls import CallError, run_all
from bench.stage import make_call
from cni.dns.client import A, ask
from cni.service import control
from plugin_table import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.calls import Work
    from bench.sides import Side
    from bench.stage import Stage

_READ = json.loads(Path(__file__).with_suffix(".json").read_text())
PLUGIN: str = _READ["plugin"]
LEAST: dict[int, dict[str, float]] = {int(names): least for names, least in _READ["least"].items()}
QUERY = "query"

_CONF: dict[str, Any] = _READ["conf"] | {"type": PLUGIN}
_LINK, _NETNS = _READ["link"], "named"
_PID_FILE = Path(f"/run/containers/cni/{PLUGIN}/{_CONF['name']}/pidfile")
_GATEWAY, _PREFIX = IPv4Address("10.92.0.1"), 16
# Debian's plugin of this name, as `make packages` unpacks it.
_UNPACKED = ROOT / "dist/debian/usr/lib/cni"
_QUERIES = 500
_WITHIN_S = 10
_SETTLED_S = 0.05


def find_go(bindir: Path) -> Path | None:
    """Return the folder of the Go plugin: `bindir` or where it was unpacked; None if there is none."""
    return next((each for each in (bindir, _UNPACKED) if (each / PLUGIN).exists()), None)


class _Name(NamedTuple):
    """A container by number: its name is that of its pod, and its address follows the gateway's."""

    number: int

    @property
    def text(self) -> str:
        return f"web{self.number}"

    @property
    def address(self) -> IPv4Address:
        return _GATEWAY + 1 + self.number

    @property
    def env(self) -> dict[str, str]:
        return {
            "CNI_CONTAINERID": self.text,
            "CNI_NETNS": f"/run/netns/{_NETNS}",
            "CNI_IFNAME": "eth0",
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAME={self.text}",
        }

    @property
    def conf(self) -> dict[str, Any]:
        """The configuration, with the result of a plugin that has attached the container to the bridge."""
        own = {
            "version": "4",
            "address": f"{self.address}/{_PREFIX}",
            "gateway": str(_GATEWAY),
            "interface": 1,
        }
        interfaces = [{"name": _LINK}, {"name": "eth0", "sandbox": f"/run/netns/{_NETNS}"}]
        result = {"cniVersion": _CONF["cniVersion"], "interfaces": interfaces, "ips": [own]}
        return _CONF | {"prevResult": result}


class Names:
    """Rounds on one side's host, on a network that has `there` names."""

    def __init__(self, stage: Stage, there: int) -> None:
        self._stage = stage
        self._next = self._there = there
        gateway = ["ip", "addr", "add", f"{_GATEWAY}/{_PREFIX}", "dev", _LINK]
        add = ["ip", "link", "add", _LINK, "type", "bridge"]
        for command in (add, gateway, ["ip", "link", "set", _LINK, "up"]):
            stage.host.run(command)
        stage.ensure_namespaces([_NETNS])
        # One stays in any case: without a name there would be no server between the rounds.
        stage.call(_fill, stage.side, max(there, 1))

    def round(self) -> dict[str, float]:
        """Add a name, ask for others, and delete it. Return the seconds of each verb."""
        self._next += 1
        return self._stage.call(_round, self._stage.side, self._next, max(self._there, 1))


def _fill(side: Side, names: int) -> None:
    run_all([_work(side, "ADD", *map(_Name, range(names)))])
    _wait(_Name(names - 1), is_answered=True)


def _round(side: Side, number: int, there: int) -> dict[str, float]:
    own = _Name(number)
    added = run_all([_work(side, "ADD", own)]) + _wait(own, is_answered=True)
    time.sleep(_SETTLED_S)
    query = _cpu_of_a_query(there)
    deleted = run_all([_work(side, "DEL", own)]) + _wait(own, is_answered=False)
    return {"ADD": added, QUERY: query, "DEL": deleted}


def _work(side: Side, verb: str, *names: _Name) -> Work:
    for name in names:
        yield make_call(side, PLUGIN, verb, name.conf, name.env)


def _wait(name: _Name, *, is_answered: bool) -> float:
    """Ask until the name is answered by its address, or no longer. Return the seconds."""
    start = time.perf_counter()
    while (str(name.address) in _ask(name)) != is_answered:
        if time.perf_counter() - start > _WITHIN_S:
            raise CallError(
                f"{name.text} is {'not' if is_answered else 'still'} answered after {_WITHIN_S} s"
            )
    return time.perf_counter() - start


def _ask(name: _Name) -> tuple[str, ...]:
    with suppress(OSError):
        answer = ask(str(_GATEWAY), f"{name.text}.{_CONF['domainName']}", A)
        return answer.addresses if answer else ()
    return ()


def _cpu_of_a_query(there: int) -> float:
    """Return the seconds of CPU that the server takes for each of some queries for names in turn."""
    pid = _server()
    before = _cpu_s(pid)
    for number in range(_QUERIES):
        _ask(_Name(number % there))
    return (_cpu_s(pid) - before) / _QUERIES


def _server() -> int:
    """Return the process that answers: dnsmasq, or our helper."""
    if _PID_FILE.exists():
        return int(_PID_FILE.read_text())
    [helper] = control.find()
    return int(control.report(helper)["helper"])


def _cpu_s(pid: int) -> float:
    return sum(_spent_ns(pid)) / 1e9


def _spent_ns(pid: int) -> Iterator[int]:
    # proc(5): nanoseconds on a core come first.
    for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - names only
        yield int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])
