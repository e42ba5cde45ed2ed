"""Networks with names on a test's host: the containers, their questions, and another server that logs."""

from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import dns.flags
import dns.message
import dns.query
import dns.rcode

import cni.dns.records
from cni.dns.names import Key, Record, Settings
from cni.service import control, status
from cni.testing import Sandbox
from tests.support.patience import LONG_S, wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence

    from cni.testing import Host
    from cni.testing.answer import Answer

Json = dict[str, Any]
Shown = tuple[str, list[str]]

NO: Shown = ("NXDOMAIN", [])
EMPTY: Shown = ("NOERROR", [])
REFUSED: Shown = ("REFUSED", [])
FAILED: Shown = ("SERVFAIL", [])
ELSEWHERE = "198.51.100.7"
_FOREIGN = r"""
import os, select, socket, sys
log, address = sys.argv[1:]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
udp = socket.socket(family, socket.SOCK_DGRAM)
udp.bind((address, 53))
tcp = socket.socket(family)
tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
tcp.bind((address, 53))
tcp.listen()
out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def answer(query):
    at, labels = 12, []
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode("latin-1"))
        at += query[at] + 1
    os.write(out, (".".join(labels) + "\n").encode())
    record = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + socket.inet_aton("198.51.100.7")
    cut = b"\x82" if labels[0] == "long" and len(labels) == 3 and not by_tcp else b"\x81"
    many = 1 if cut == b"\x81" else 0
    return query[:2] + cut + b"\x80\0\1" + bytes([0, many]) + b"\0\0\0\0" + query[12:at + 5] + record * many
os.write(out, b"ready\n")
while True:
    for ready in select.select([udp, tcp], [], [])[0]:
        by_tcp = ready is tcp
        if by_tcp:
            peer = tcp.accept()[0]
            query = peer.recv(65535)
            reply = answer(query[2:])
            peer.sendall(len(reply).to_bytes(2, "big") + reply)
            peer.close()
        else:
            query, peer = udp.recvfrom(65535)
            udp.sendto(answer(query), peer)
"""


class Attached(NamedTuple):
    """A container on a network."""

    sandbox: Sandbox
    container_id: str
    ifname: str
    added: Json
    args: str
    aliases: tuple[str, ...]

    @property
    def addresses(self) -> list[str]:
        """Its addresses, without prefix."""
        return [each["address"].partition("/")[0] for each in self.added["ips"]]


class Network:
    """A bridge network of both families with names: 10.N.0.0/24 and fd0N::/64, gateways .1 and ::1."""

    def __init__(self, host: Host, number: int = 1, **keys: Any) -> None:
        self.host = host
        self.name = f"net{number}"
        self.gateway, self.gateway6 = f"10.{number}.0.1", f"fd0{number}::1"
        self.number = number
        head = {"cniVersion": "1.1.0", "name": self.name}
        ranges = [[{"subnet": f"10.{number}.0.0/24"}], [{"subnet": f"fd0{number}::/64"}]]
        self.bridge: Json = {
            **head,
            "type": "bridge",
            "bridge": f"br{number}",
            "isGateway": True,
            "ipam": {
                "type": "host-local",
                "ranges": ranges,
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            },
        }
        self.conf: Json = {**head, "type": "dnsname", "domainName": f"{self.name}.test", **keys}

    def attach(self, name: str, *aliases: str, ifname: str = "eth0", container_id: str = "") -> Attached:
        """Attach a container, which has the name, by a bridge and then by dnsname."""
        made = self.prepare(name, *aliases, ifname=ifname, container_id=container_id)
        return made._replace(added=self.call("ADD", made).must())

    def prepare(self, name: str, *aliases: str, ifname: str = "eth0", container_id: str = "") -> Attached:
        """Attach a container by a bridge only; `added` is that result."""
        own = container_id or name
        exists = own in self.host.run(["sh", "-c", "ls /run/netns 2>/dev/null || true"]).split()
        sandbox = _sandbox(self.host, own) if exists else self.host.sandbox(own)
        answer = self.host.plugin(
            "bridge", "ADD", self.bridge, netns=sandbox, container_id=own, ifname=ifname
        )
        added = answer.must()
        return Attached(sandbox, own, ifname, added, f"IgnoreUnknown=1;K8S_POD_NAME={name}", aliases)

    def call(self, verb: str, attached: Attached, /, **keys: Any) -> Answer:
        """Call dnsname; `keys` replace keys of the configuration, None removes one."""
        given = {
            "prevResult": attached.added,
            "runtimeConfig": {"aliases": {self.name: list(attached.aliases)}},
        }
        conf = {key: value for key, value in {**self.conf, **given, **keys}.items() if value is not None}
        return self.host.plugin(
            "dnsname",
            verb,
            conf,
            netns=attached.sandbox,
            container_id=attached.container_id,
            ifname=attached.ifname,
            args=attached.args,
        )

    def detach(self, attached: Attached) -> None:
        """Withdraw the names."""
        self.call("DEL", attached).must()

    def status(self, verb: str = "STATUS", **keys: Any) -> Answer:
        """Call a verb that is about no attachment."""
        return self.host.plugin("dnsname", verb, self.conf | keys)


def _sandbox(host: Host, name: str) -> Sandbox:
    """Return a sandbox that exists already."""
    return Sandbox(host, name)


class Question(NamedTuple):
    """A question to a server."""

    name: str
    kind: str = "A"
    server: str = "10.1.0.1"
    is_tcp: bool = False


def ask(
    asker: Host | Sandbox, name: str, kind: str = "A", server: str = "10.1.0.1", *, tcp: bool = False
) -> Shown:
    """Return the code and the records that a server answers."""
    return ask_all(asker, [Question(name, kind, server, tcp)])[0]


def ask_all(asker: Host | Sandbox, questions: Sequence[Question]) -> list[Shown]:
    """Return the answers to several questions, asked one after another."""
    return asker.call(_ask, questions)


def _ask(questions: Sequence[Question]) -> list[Shown]:
    found = []
    for each in questions:
        query = dns.message.make_query(each.name, each.kind, use_edns=0)
        send = dns.query.tcp if each.is_tcp else dns.query.udp
        answer = send(query, each.server, timeout=LONG_S)
        texts = sorted(str(item) for rrset in answer.answer for item in rrset)
        found.append((dns.rcode.to_text(answer.rcode()), texts))
    return found


def is_silent(asker: Host | Sandbox, name: str, server: str) -> bool:
    """Return whether a server gives no answer, or the kernel refuses the packet."""
    return asker.call(_is_silent, name, server)


def _is_silent(name: str, server: str) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(0.5)
        try:
            asking.connect((server, 53))
            asking.send(dns.message.make_query(name, "A").to_wire())
            asking.recv(1000)
        except OSError:
            return True
    return False


class Foreign:
    """A server of others: it answers each question with ELSEWHERE, and logs it."""

    def __init__(self, sandbox: Sandbox | Host, address: str, log: str = "/run/foreign.log") -> None:
        self._inside = sandbox
        self._log = log
        self._process: subprocess.Popen[str] = sandbox.place.popen(
            [sys.executable, "-c", _FOREIGN, log, address]
        )
        wait_until(lambda: "ready" in self._read())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the server."""
        self._process.kill()
        self._process.communicate()

    @property
    def asked(self) -> list[str]:
        """The names that it was asked for."""
        return self._read().split()[1:]

    def _read(self) -> str:
        return self._inside.run(["sh", "-c", f"cat {self._log} 2>/dev/null || true"])


def fill(networks: int, names: int, owner: str) -> None:
    """Write records of names on networks 10.100.0.0/16 and following, for a child on the host."""
    for at in range(names):
        number = at % networks
        settings = Settings(
            f"n{number}.test",
            (f"10.{100 + number}.0.1", f"fd{number:02x}::1"),
            (f"10.{100 + number}.0.0/16", f"fd{number:02x}::/64"),
        )
        addresses = (f"10.{100 + number}.{at // 200}.{at % 200 + 2}", f"fd{number:02x}::{at + 2:x}")
        key = Key(f"n{number}", f"{at:064x}", "eth0")
        cni.dns.records.publish(Record(key, (f"name-{at}", f"{at:012x}"), addresses, settings, at, "", owner))


def servers(host: Host) -> list[tuple[int, int]]:
    """Return guard and helper of each DNS server that runs on the host."""
    return host.call(_servers)


def _servers() -> list[tuple[int, int]]:
    found = [(each.pid, control.report(each).get("helper", 0)) for each in control.find()]
    return [(guard, helper) for guard, helper in found if helper]


def kill_servers(host: Host) -> None:
    """Kill all DNS servers of the host, with their guards."""
    pids = [str(pid) for pair in servers(host) for pid in pair]
    # A helper that runs becomes a guard as soon as its own has ended.
    host.run(["kill", "-STOP", *pids])
    host.run(["kill", "-KILL", *pids])


def wait_for_end(host: Host) -> None:
    """Wait until no server runs."""
    wait_until(lambda: not host.call(control.find))


def pss_kib(pid: int) -> int:
    """Return the memory of a process, its part of what it shares."""
    return status.pss_kib(pid)


def replace_resolv_conf(host: Host, *addresses: str) -> None:
    """Replace the host's resolv.conf by another file, as a DHCP client does."""
    text = "".join(f"nameserver {each}\n" for each in addresses)
    host.call(_replace, text)


def _replace(text: str) -> None:
    path = Path("/etc/resolv.conf.new")
    path.write_text(text)
    path.rename("/etc/resolv.conf")


def own_etc(host: Host) -> None:
    """Mount an /etc of the host's own, with what tests have put there."""
    script = "cp -a /etc/cni /run/etc-cni && mount -t tmpfs none /etc && mv /run/etc-cni /etc/cni"
    host.run(["sh", "-ec", script])


def records(host: Host) -> list[Json]:
    """Return the records of names on the host."""
    script = "cat /run/pycni/dns/*/[0-9a-f]* 2>/dev/null | sed 's/}{/}\\n{/g' || true"
    return [json.loads(each) for each in host.run(["sh", "-c", script]).splitlines()]


def now() -> float:
    """Return the time for differences."""
    return time.monotonic()
