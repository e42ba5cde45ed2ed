"""The state that plugins may change, as values to compare: equal snapshots mean that nothing remains.

A snapshot leaves out what the kernel changes at a later time of its own, because two snapshots would differ
by the load of the machine. When a link gets its carrier, the kernel gives the link a link-local address and
the route to it, and lets a bridge port forward.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

from cni.testing import digest
from cni.testing.namespaces import entered

if TYPE_CHECKING:
    from collections.abc import Collection

    from cni.testing.place import Place

# By the names of the fields of a snapshot.
Lines = dict[str, list[str]]
_MOST_KNOWN = 200

FOLDERS = ("/run", "/var/lib/cni", "/etc/cni")

# Fields that change by themselves, or repeat another field.
_VOLATILE_LINK = {
    "ifindex", "link_index", "stats", "stats64", "operstate", "num_tx_queues", "num_rx_queues",
    "hello_timer", "tcn_timer", "topology_change_timer", "gc_timer", "message_age_timer",
    "forward_delay_timer", "hold_timer", "root_id", "bridge_id", "designated_root", "designated_bridge",
    "timer", "tso_max_size", "tso_max_segs",
    # The kernel's counts of who needs all frames: a macvlan link in a namespace that ends leaves them late.
    # What a user has set is a flag.
    "promiscuity", "allmulti",
}  # fmt: skip
# The state of a bridge port, "disabled" or "forwarding", follows the carrier.
_VOLATILE_PORT = {"state"}
# A link-local address that the kernel has made from the link's MAC address, and its route.
_KERNELS_ADDRESS = re.compile(r"fe80::[0-9a-f:]*[0-9a-f]{0,2}ff:fe[0-9a-f]{2}:[0-9a-f]{1,4}")
_KERNELS_ROUTE = ("fe80::/64", "kernel")
# Routes that the kernel derives from addresses, for IPv6 seconds later. A VRF's table has them, too.
_DERIVED = {"local", "broadcast", "multicast", "anycast"}
_VOLATILE_FLAGS = {"LOWER_UP", "NO-CARRIER", "M-DOWN"}
_VOLATILE_ADDRESS = {"valid_life_time", "preferred_life_time", "tentative"}
_VOLATILE_ROUTE = {"expires", "cache", "flags"}
_VOLATILE_RULE = {"handle", "index", "counter", "packets", "bytes", "expires"}
_IPTABLES_TABLES = {"filter", "nat", "mangle", "raw", "security"}
# netlink(7): the protocol, and the message that asks for all tables of nftables.
_TABLES = 12, 10 << 8 | 1
_REQUEST_DUMP, _DONE = 0x301, 3
# Files of iptables and of container runtimes, and files of ours that belong to no attachment.
_NOT_CNIS = (
    "/run/netns", "/run/xtables.lock", "/run/containerd", "/run/containers", "/run/libpod", "/run/crun",
    "/run/pycni/warm", "/run/pycni/helpers", "/run/pycni/boot",
)  # fmt: skip
# Programs that print rules, with the family of their tables as nft calls it.
_NFT_SAVES = {"iptables-nft-save": "ip", "ip6tables-nft-save": "ip6"}
# Programs that print rules, with the file that lists their tables, which may be missing.
_LEGACY_SAVES = {"iptables-legacy-save": "ip_tables_names", "ip6tables-legacy-save": "ip6_tables_names"}


@dataclass(frozen=True)
class Snapshot:
    """Each field is a sorted list of lines, which begin with "host" or the name of a sandbox.

    `flows` are UDP flows to published ports in connection tracking, with their old and new destination.
    """

    links: list[str]
    addresses: list[str]
    routes: list[str]
    rules: list[str]
    files: list[str]
    flows: list[str] = field(default_factory=list)

    def differences(self, later: Snapshot) -> list[str]:
        """List lines that only `later` has ("+ ...") or lacks ("- ..."); flows may end by themselves."""
        found = []
        for kind in (each.name for each in fields(self)):
            before, after = set(getattr(self, kind)), set(getattr(later, kind))
            found += [f"- {kind}: {line}" for line in sorted(before - after) if kind != "flows"]
            found += [f"+ {kind}: {line}" for line in sorted(after - before)]
        return found


class Namespace(NamedTuple):
    """The part of a snapshot about one network namespace; `name` is "host" or that of a sandbox.

    As long as the digest is the same, so are the lines: they are None if the digest is known. An empty digest
    means that something was changing meanwhile.
    """

    name: str
    digest: bytes
    lines: Lines | None
    flows: list[str]


def take(known: Collection[bytes] = (), *, exact: bool = False) -> tuple[list[Namespace], list[str]]:
    """Return this namespace and all in /run/netns, and the lines of files; `exact` as in `Host.snapshot`."""
    found = [_take("host", known)]
    for name in sorted(each.name for each in Path("/run/netns").iterdir()):
        with entered(f"/run/netns/{name}"):
            found.append(_take(name, known))
    return found, _files(exact=exact)


def _take(name: str, known: Collection[bytes]) -> Namespace:
    before = digest.of_namespace()
    if before in known:
        return Namespace(name, before, None, _flows())
    lines = _network()
    return Namespace(name, before if before == digest.of_namespace() else b"", lines, _flows())


class Known:
    """The lines of namespaces by their digests, those that were used last."""

    def __init__(self) -> None:
        self._lines: dict[bytes, Lines] = {}
        self._lock = Lock()

    def snapshot(self, place: Place, *, exact: bool) -> Snapshot:
        """Return a snapshot of a host."""
        with self._lock:
            known = dict(self._lines)
        namespaces, files = place.visit(take, list(known), exact=exact)
        found: dict[str, list[str]] = {"links": [], "addresses": [], "routes": [], "rules": [], "flows": []}
        for each in namespaces:
            lines = known[each.digest] if each.lines is None else each.lines
            self._keep(each.digest, lines)
            for kind, of_kind in (*lines.items(), ("flows", each.flows)):
                found[kind] += [f"{each.name}: {line}" for line in of_kind]
        return Snapshot(**{kind: sorted(lines) for kind, lines in found.items()}, files=files)

    def _keep(self, key: bytes, lines: Lines) -> None:
        with self._lock:
            self._lines.pop(key, None)
            if key:
                self._lines[key] = lines
            while len(self._lines) > _MOST_KNOWN:
                del self._lines[next(iter(self._lines))]


def _network() -> Lines:
    shown, all_routes = _addresses_and_routes()
    addresses = [
        f"{link['ifname']} {_line(address, _VOLATILE_ADDRESS)}"
        for link in shown
        for address in link["addr_info"]
        if not _KERNELS_ADDRESS.fullmatch(address["local"])
    ]
    for link in shown:
        link["flags"] = sorted(set(link["flags"]) - _VOLATILE_FLAGS)
        port = link.get("linkinfo", {}).get("info_slave_data", {})
        for key in _VOLATILE_PORT & set(port):
            del port[key]
    links = [_line(link, _VOLATILE_LINK | {"addr_info"}) for link in shown]
    routes = [
        _line(route, _VOLATILE_ROUTE)
        for route in all_routes
        if route.get("table") != "local"
        and (route["dst"], route.get("protocol")) != _KERNELS_ROUTE
        and not (route.get("type") in _DERIVED and route.get("protocol") == "kernel")
    ]
    ruleset = _nft_ruleset()
    rules = _iptables(_saves(ruleset)) + _nftables(ruleset)
    return {"links": links, "addresses": addresses, "routes": routes, "rules": rules}


def _addresses_and_routes() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return all links with their addresses, and all routes of both families, by one program.

    Each program's start costs 3 ms.
    """
    output = _output(["ip", "-j", "-d", "-batch", "-"], "addr\nroute show table all\n")
    # One line for each command; none for no routes.
    links, routes = [*(json.loads(line) for line in output.splitlines() if line.strip()), [], []][:2]
    return links, routes


def _flows() -> list[str]:
    """List UDP flows whose destination was translated."""
    if not digest.tracks_connections():
        return []
    try:
        lines = Path("/proc/thread-self/net/nf_conntrack").read_text().splitlines()
    except FileNotFoundError:
        return []
    found = set()
    for line in lines:
        # "ipv4 2 udp 17 29 src=A dst=B sport=1 dport=2 src=C dst=D sport=3 dport=4 ...": there and back.
        match = re.search(r" udp .*? dst=(\S+) .*?dport=(\d+) .*?src=(\S+) .*?sport=(\d+) ", line)
        if match and match.group(1, 2) != match.group(3, 4):
            found.add("udp {} {} goes to {} {}".format(*match.groups()))
    return sorted(found)


def _is_empty(protocol: int, request: int) -> bool:
    """Return whether the kernel lists nothing, as in most sandboxes: a program's start costs 3 ms."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as kernel:
        kernel.send(struct.pack("=IHHIIB11x", 28, request, _REQUEST_DUMP, 1, 0, socket.AF_UNSPEC))
        kind: int = struct.unpack_from("=IH", kernel.recv(1 << 16))[1]
        return kind == _DONE


def _nft_ruleset() -> list[dict[str, Any]] | None:
    """Return all that nft lists; None if there is no nft."""
    if _is_empty(*_TABLES):
        return []
    output = _output(["nft", "-j", "list", "ruleset"])
    ruleset: list[dict[str, Any]] | None = json.loads(output)["nftables"] if output else None
    return ruleset


def _saves(ruleset: list[dict[str, Any]] | None) -> list[str]:
    """Return the programs that may have rules to print, because each start costs 2 ms."""
    tables = [item["table"] for item in ruleset or [] if "table" in item]
    families = {table["family"] for table in tables if table["name"] in _IPTABLES_TABLES}
    saves = [save for save, family in _NFT_SAVES.items() if ruleset is None or family in families]
    for save, names in _LEGACY_SAVES.items():
        path = Path("/proc/thread-self/net") / names
        if path.exists() and path.read_text():
            saves.append(save)
    return saves


def _iptables(saves: list[str]) -> list[str]:
    found = []
    for save in saves:
        table = ""
        for line in _output([save]).splitlines():
            if line.startswith("*"):
                table = line[1:]
            elif line.startswith(("-A", ":")) and not re.match(r":\S+ ACCEPT", line):
                without_counters = re.sub(r" *\[[0-9:]+\]", "", line)
                found.append(f"{save} {table} {without_counters}")
    return found


def _nftables(ruleset: list[dict[str, Any]] | None) -> list[str]:
    found = []
    for item in ruleset or []:
        [(kind, value)] = item.items()
        table = value.get("name") if kind == "table" else value.get("table")
        # iptables-save lists the tables of iptables.
        if kind == "metainfo" or (value.get("family") in {"ip", "ip6"} and table in _IPTABLES_TABLES):
            continue
        if "elem" in value:
            value["elem"] = sorted(value["elem"], key=json.dumps)
        found.append(f"nft {kind} {_line(value, _VOLATILE_RULE)}")
    return found


def _files(*, exact: bool) -> list[str]:
    found = []
    for path in (path for folder in FOLDERS for path in Path(folder).rglob("*")):
        # Another process may remove a file after it was listed.
        with suppress(FileNotFoundError):
            found.append(_file(path, exact=exact))
    return sorted(filter(None, found))


def _file(path: Path, *, exact: bool) -> str:
    if str(path).startswith(_NOT_CNIS):
        return ""
    # A namespace that is mounted there.
    if path.lstat().st_dev != path.parent.stat().st_dev:
        return ""
    mode = f"{path.lstat().st_mode:o}"
    if path.is_symlink():
        return f"{path} {mode} -> {path.readlink()}"
    if path.is_dir():
        return f"{path}/ {mode}" if exact else ""
    passing = path.name == "lock" or path.name.endswith(".lock") or path.name.startswith("last_reserved_ip.")
    if passing and not exact:
        return ""
    return f"{path} {mode} {path.read_bytes()!r}" if path.is_file() else f"{path} {mode}"


def _line(value: Any, without: set[str]) -> str:
    return json.dumps(_pruned(value, without), sort_keys=True)


def _pruned(value: Any, without: set[str]) -> Any:
    if isinstance(value, dict):
        return {key: _pruned(each, without) for key, each in value.items() if key not in without}
    if isinstance(value, list):
        return [_pruned(each, without) for each in value]
    return value


def _output(argv: list[str], stdin: str = "") -> str:
    try:
        return subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return ""
