"""Rounds of names: ADD until the name is answered, the CPU time of a query, DEL until it is not.

`names.json` has the plugin, its configuration and the least ratios by names there and verb, to Go and to
aardvark-dns. Debian has the Go plugin, which starts dnsmasq, in a package of its own. aardvark-dns is no
plugin: it gets a file with all names, and only its queries are measured.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.calls import CallError, run_all
from bench.queries import ask_all, cpu_of_each
from bench.sides import AARDVARK
from bench.stage import make_call
from cni.dns.client import A, ask
from cni.service import control
from plugin_table import ROOT

if TYPE_CHECKING:
    from bench.calls import Work
    from bench.sides import Side
    from bench.stage import Stage

_READ = json.loads(Path(__file__).with_suffix(".json").read_text())
PLUGIN: str = _READ["plugin"]
LEAST: dict[int, dict[str, float]] = {int(names): least for names, least in _READ["least"].items()}
LEAST_OF_AARDVARK: dict[int, dict[str, float]] = {
    int(names): least for names, least in _READ["least_of_aardvark"].items()
}
# A query that was asked since the last change, one that was not, and one for a name that is not there.
AGAIN, NEW, UNKNOWN = "query", "new query", "unknown name"

_CONF: dict[str, Any] = _READ["conf"] | {"type": PLUGIN}
_DOMAIN: str = _CONF["domainName"]
_LINK, _NETNS = _READ["link"], "named"
_PID_FILE = Path(f"/run/containers/cni/{PLUGIN}/{_CONF['name']}/pidfile")
_GATEWAY, _PREFIX = IPv4Address("10.92.0.1"), 16
# Debian's packages, as `make packages` unpacks them.
_UNPACKED = ROOT / "dist/debian/usr/lib"
_SYSTEM = Path("/usr/lib")
_AARDVARK_FOLDER = Path("/run/aardvark")
_AARDVARK_PID = _AARDVARK_FOLDER / "aardvark.pid"
_QUERIES = 500
_WITHIN_S = 10
_SETTLED_S = 0.05


def find_go(bindir: Path) -> Path | None:
    """Return the folder of the Go plugin: `bindir` or where it was unpacked; None if there is none."""
    return next((each for each in (bindir, _UNPACKED / "cni") if (each / PLUGIN).exists()), None)


def find_aardvark() -> Path | None:
    """Return the folder of aardvark-dns, as installed or unpacked; None if there is none."""
    folders = (_SYSTEM / "podman", _UNPACKED / "podman")
    return next((each for each in folders if (each / "aardvark-dns").exists()), None)


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


# Servers answer those who have a name: queries come from the first container's address.
_WAY = str(_GATEWAY), str(_Name(0).address)


class Names:
    """Rounds on one side's host, on a network that has `there` names."""

    def __init__(self, stage: Stage, there: int) -> None:
        self._stage = stage
        self._next = there
        add = ["ip", "link", "add", _LINK, "type", "bridge"]
        addresses = [f"{_GATEWAY}/{_PREFIX}", f"{_Name(0).address}/32"]
        gateway = [["ip", "addr", "add", each, "dev", _LINK] for each in addresses]
        for command in (add, *gateway, ["ip", "link", "set", _LINK, "up"]):
            stage.host.run(command)
        stage.ensure_namespaces([_NETNS])
        stage.endings.append(_end_server)
        # One stays in any case: without a name there would be no server between the rounds.
        self._there = max(there, 1)
        if stage.side.suite == AARDVARK:
            stage.call(_start_aardvark, stage.side.bindir / "aardvark-dns", self._there)
        else:
            stage.call(_fill, stage.side, self._there)

    def round(self) -> dict[str, float]:
        """Add a name, ask for others, and delete it. Return the seconds of each verb."""
        self._next += 1
        if self._stage.side.suite == AARDVARK:
            return self._stage.call(_ask_all, self._there, self._next)
        return self._stage.call(_round, self._stage.side, self._next, self._there)


def _fill(side: Side, names: int) -> None:
    run_all([_work(side, "ADD", *map(_Name, range(names)))])
    _wait(_Name(names - 1), is_answered=True)


def _start_aardvark(program: Path, names: int) -> None:
    """Start it as netavark does, which writes its file: gateways, then ID, addresses and names."""
    lines = [f"{each.number:064x} {each.address}  {each.text}\n" for each in map(_Name, range(names))]
    _AARDVARK_FOLDER.mkdir()
    (_AARDVARK_FOLDER / _CONF["name"]).write_text(f"{_GATEWAY}\n" + "".join(lines))
    options = ["--config", str(_AARDVARK_FOLDER), "--port", "53", "--filter-search-domain", f".{_DOMAIN}"]
    subprocess.run(
        [program, *options, "run"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    last, deadline_s = _Name(names - 1), time.perf_counter() + _WITHIN_S
    # It is ready a moment after its parent has ended.
    while time.perf_counter() < deadline_s:
        with suppress(CallError):
            if ask_all(*_WAY, [f"{last.text}.{_DOMAIN}"]) == [str(last.address)]:
                return
        time.sleep(_SETTLED_S)
    raise CallError(f"aardvark-dns does not answer {last.text} after {_WITHIN_S} s")


def _round(side: Side, number: int, there: int) -> dict[str, float]:
    own = _Name(number)
    added = run_all([_work(side, "ADD", own)]) + _wait(own, is_answered=True)
    time.sleep(_SETTLED_S)
    asked = _ask_all(there, number)
    deleted = run_all([_work(side, "DEL", own)]) + _wait(own, is_answered=False)
    return {"ADD": added, **asked, "DEL": deleted}


def _ask_all(there: int, number: int) -> dict[str, float]:
    """Return the seconds of CPU that the server takes for each kind of query; `number` is the round's."""
    known = [f"{_Name(each % there).text}.{_DOMAIN}" for each in range(_QUERIES)]
    unknown = [f"nobody{number}-{each}.{_DOMAIN}" for each in range(_QUERIES)]
    pid = _server()
    return {
        verb: cpu_of_each(pid, *_WAY, asked)
        for verb, asked in ((NEW, known), (AGAIN, known), (UNKNOWN, unknown))
    }


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
        answer = ask(str(_GATEWAY), f"{name.text}.{_DOMAIN}", A)
        return answer.addresses if answer else ()
    return ()


def _server() -> int:
    """Return the process that answers: dnsmasq, aardvark-dns, or our helper."""
    for file in (_PID_FILE, _AARDVARK_PID):
        if file.exists():
            return int(file.read_text())
    [helper] = control.find()
    return int(control.report(helper)["helper"])


def _end_server() -> None:
    """End a server that would outlive the host: it runs in its namespaces."""
    with suppress(ValueError, OSError):
        os.kill(_server(), signal.SIGTERM)
