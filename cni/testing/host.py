"""A private host and the sandboxes on it: namespaces that end with the test."""

from __future__ import annotations

import json
import os
import socket
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, Self, TypeVar

from cni.testing.answer import Answer
from cni.testing.holder import Holder, add_namespace, delete_namespace
from cni.testing.namespaces import write_sysctls
from cni.testing.place import BARE_ENV, SLOWNESS, Place
from cni.testing.snapshot import Known
from cni.testing.traffic import Seen, Server, ask
from cni.testing.warm import end as end_servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cni.testing.snapshot import Snapshot
    from cni.testing.zygote import Zygote

P = ParamSpec("P")
T = TypeVar("T")

OURS: Path | None = None
GO = Path("/usr/lib/cni")
_GONE_S = 300
# Of all hosts: new namespaces are the same on each.
_KNOWN = Known()


class _Inside:
    """The operations that a host and a sandbox have in common."""

    place: Place

    def run(self, argv: Sequence[str], stdin: str = "", **options: Any) -> str:
        """Run a program in here and return its stdout. Raise CommandError if it fails.

        Options are those of `Place.run`: env, check, timeout_s.
        """
        return self.place.run(argv, stdin, **options).stdout

    def batch(self, commands: Iterable[str]) -> None:
        """Run commands of ip in here, all in one process."""
        self.run(["ip", "-batch", "-"], "".join(f"{command}\n" for command in commands))

    def json(self, argv: Sequence[str]) -> Any:
        """Run a program that prints JSON, as `ip -j` does, and return the document; [] for no output."""
        return json.loads(self.run(argv) or "[]")

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a Python function in here, in a child. Return its result, or raise its exception."""
        return self.place.call(function, *args, **kwargs)

    def serve(self, port: int, protocol: str = "tcp", address: str = "") -> Server:
        """Serve a port in here until the context ends; "" listens on all addresses of IPv4 and IPv6.

        The server answers each request with the peer's address as seen here.
        """
        return Server(self.place, port, protocol, address)

    def dial(
        self, address: str, port: int, protocol: str = "tcp", *, source: str = "", timeout_s: float = 10
    ) -> Seen:
        """Send a request to a server of `serve`. Raise OSError, for example TimeoutError, if none answers."""
        return self.place.visit(ask, address, port, protocol, source, timeout_s * SLOWNESS)

    def reaches(self, address: str, port: int, protocol: str = "tcp", *, timeout_s: float = 0.7) -> bool:
        """Return whether a server answers. The limit is short because tests often expect silence."""
        try:
            self.dial(address, port, protocol, timeout_s=timeout_s)
        except OSError:
            return False
        return True

    def settled_links(self, *which: str) -> list[dict[str, Any]]:
        """Return what `ip -j link show` prints, without the state, which follows the carrier later."""
        shown = self.json(["ip", "-j", "link", "show", *which])
        return [{key: value for key, value in each.items() if key != "operstate"} for each in shown]

    def links(self) -> list[str]:
        """Return the names of all links in here."""
        return [link["ifname"] for link in self.json(["ip", "-j", "link"])]

    def addresses(self, ifname: str) -> list[str]:
        """Return a link's addresses with prefix ("10.1.0.5/24"), except those of link scope."""
        shown = self.json(["ip", "-j", "addr", "show", "dev", ifname])
        return [
            f"{each['local']}/{each['prefixlen']}"
            for each in shown[0]["addr_info"]
            if each["scope"] != "link"
        ]


class Sandbox(_Inside):
    """A container's network namespace; `path` is the value for CNI_NETNS, in the host's mount namespace."""

    def __init__(self, host: Host, name: str) -> None:
        self.host = host
        self.name = name
        self.path = f"/run/netns/{name}"
        self.place = Place(host.place.holder, self.path, host.place.own_user)

    def delete(self, *, settled: bool = True) -> None:
        """Remove the namespace, as a runtime or a crash may do before DEL.

        The kernel removes its links some time later. `settled=False` does not wait for that: the next call
        then races with the kernel.
        """
        # The link below a macvlan, ipvlan or VLAN link stays.
        pairs = self.json(["ip", "-j", "link", "show", "type", "veth"]) if settled else []
        peers = {link["link_index"] for link in pairs if "link_netnsid" in link}
        place = self.host.place
        place.visit(delete_namespace, self.name)
        deadline = time.monotonic() + _GONE_S * SLOWNESS
        while peers & {index for index, _ in place.visit(socket.if_nameindex)}:
            if time.monotonic() > deadline:
                raise TimeoutError(f"links of {self.name} are there {_GONE_S} s after it was removed")
            time.sleep(0.02)


class Outside(NamedTuple):
    """A peer of the host on a network that knows no route to containers; addresses without prefix."""

    sandbox: Sandbox
    address: str
    address6: str
    host_address: str
    host_address6: str


class Host(_Inside):
    """A private network and mount namespace: empty /run, /var/lib/cni and /etc/cni, lo up, no other link.

    `bindir` is where its plugins are; a `zygote` calls these. Close the host, or use it as a context.
    """

    def __init__(self, bindir: Path, zygote: Zygote | None = None) -> None:
        self.bindir = bindir
        self._zygote = zygote
        user = os.geteuid() != 0
        self._holder = Holder(own_user=user)
        self.place = Place(self._holder.pid, own_user=user)

    def close(self) -> None:
        """End the namespaces and their warm servers, but no other processes that tests have started there."""
        if self._holder.is_alive():
            end_servers(self.place)
        self._holder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process that holds the namespaces: /proc/<pid>/ns/net and so on."""
        return self._holder.pid

    def sandbox(self, name: str) -> Sandbox:
        """Create a network namespace with lo down, as runtimes do."""
        self.place.visit(add_namespace, name)
        return Sandbox(self, name)

    @cached_property
    def outside(self) -> Outside:
        """A peer in its own namespace, linked to the host's eth0: 192.0.2.0/24, 2001:db8:ffff::/64."""
        peer = self.sandbox("outside")
        outside = Outside(peer, "192.0.2.2", "2001:db8:ffff::2", "192.0.2.1", "2001:db8:ffff::1")
        # One program on each side, as a start costs 4 ms. The second one finds a carrier for its routes.
        pair = f"link add eth0 type veth peer name eth0 netns {self.pid}"
        peer.batch([pair, *_up_with(outside.address, outside.address6)])
        # The host forwards nothing by IPv6 before it has a link-local address to look for neighbours with. To
        # check it takes the kernel seconds.
        self.place.visit(write_sysctls, {"net/ipv6/conf/eth0/accept_dad": "0"})
        routes = [f"route add default via {each}" for each in (outside.address, outside.address6)]
        self.batch([*_up_with(outside.host_address, outside.host_address6), *routes])
        return outside

    def snapshot(self, *, exact: bool = False) -> Snapshot:
        """Return links, addresses, routes and rules of all namespaces, and CNI's files, to compare them.

        A snapshot ignores what tools leave behind by themselves: empty tables and chains of iptables, lock
        files and host-local's last reserved address. `exact` includes all files and directories.
        """
        return _KNOWN.snapshot(self.place, exact=exact)

    def plugin(  # noqa: PLR0913 - the parameters of a CNI call
        self,
        name: str,
        verb: str,
        conf: Mapping[str, Any] | str,
        *,
        netns: str | Sandbox = "",
        container_id: str = "c1",
        ifname: str = "eth0",
        args: str = "",
        bindir: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout_s: float = 300,
    ) -> Answer:
        """Call a plugin as a runtime does, with CNI_* and PATH as the only variables.

        `conf` is the plugin's configuration, or raw stdin. `bindir` is OURS (this host's) or GO, and also the
        value of CNI_PATH. `env` adds variables; a value of "" removes one of the usual ones.
        """
        folder = bindir or self.bindir
        variables = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container_id,
            "CNI_NETNS": netns.path if isinstance(netns, Sandbox) else netns,
            "CNI_IFNAME": ifname,
            "CNI_ARGS": args,
            "CNI_PATH": str(folder),
        }
        given = {name: value for name, value in {**variables, **(env or {})}.items() if value}
        stdin = conf if isinstance(conf, str) else json.dumps(conf)
        program, env = folder / name, {**BARE_ENV, **given}
        done = self._zygote and self._zygote.run(self.place, program, stdin, env, timeout_s)
        done = done or self.place.run([str(program)], stdin, env=env, check=False, timeout_s=timeout_s)
        return Answer(done.returncode, done.stdout, done.stderr.strip())


def _up_with(address: str, address6: str) -> list[str]:
    addresses = [f"addr add {address}/24 dev eth0", f"addr add {address6}/64 dev eth0 nodad"]
    return ["link set lo up", "link set eth0 up", *addresses]
