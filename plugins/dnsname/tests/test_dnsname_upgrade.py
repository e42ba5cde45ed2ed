"""The suite is installed again, and uninstalled, while containers have names and ask for them."""

from __future__ import annotations

import compileall
import json
import shutil
import socket
import sys
import time
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import dns.message
import pytest

from cni.dns.client import HELPER
from cni.testing.place import BARE_ENV
from plugin_table import ROOT
from tests.names_world import NO, Network, ask, is_silent, records, servers
from tests.netns.bundled_host import PREFIX, empty_opt
from tests.support.patience import LONG_S, wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from cni.testing import Host
    from tests.names_world import Attached

__all__ = ["empty_opt"]

UPSTREAM = "127.0.0.2"
_LATER = "9.9.9-later"
_MODULE = "cni/dns/records.py"
_LINE = "        **record._asdict(),\n"
# A client in a container: it asks by UDP all the time, also while others are unanswered, and by TCP in turn.
_CLIENT = r"""
import json, signal, socket, sys, threading, time
server, questions, long_s = sys.argv[1], json.loads(sys.argv[2]), float(sys.argv[3])
is_over = threading.Event()
counts = {"udp": 0, "tcp": 0}
wrong = []

def query(number, name):
    labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split("."))
    return number.to_bytes(2, "big") + b"\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1"

def check(kind, name, answer):
    counts[kind] += 1
    wanted = questions[name]
    shown = socket.inet_ntoa(answer[-4:]) if answer[7] else ""
    if [answer[3] & 15, shown] != wanted:
        wrong.append([kind, name, answer[3] & 15, shown])

def ask_by_tcp():
    try:
        while not is_over.is_set():
            for name in questions:
                with socket.create_connection((server, 53), long_s) as asking:
                    asking.sendall(len(query(0, name)).to_bytes(2, "big") + query(0, name))
                    answer = b""
                    while len(answer) < 2 or len(answer) < 2 + int.from_bytes(answer[:2], "big"):
                        got = asking.recv(4096)
                        if not got:
                            raise OSError("closed")
                        answer += got
                check("tcp", name, answer[2:])
                time.sleep(0.01)
    except OSError as error:
        wrong.append(["tcp", name, str(error)])

signal.signal(signal.SIGTERM, lambda *_: is_over.set())
by_tcp = threading.Thread(target=ask_by_tcp)
by_tcp.start()
sent = {}
number = 0
deadline_s = None
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
    asking.connect((server, 53))
    asking.settimeout(0.005)
    while sent or not is_over.is_set():
        # What is on its way fits into the sockets, also when the machine is busy.
        if not is_over.is_set() and len(sent) < 64:
            for name in questions:
                number = (number + 1) % 65536
                sent[number] = name
                asking.send(query(number, name))
        elif is_over.is_set() and deadline_s is None:
            deadline_s = time.monotonic() + long_s
        elif deadline_s is not None and time.monotonic() > deadline_s:
            break
        try:
            while True:
                answer = asking.recv(4096)
                check("udp", sent.pop(int.from_bytes(answer[:2], "big"), ""), answer)
        except TimeoutError:
            pass
        except OSError as error:
            wrong.append(["udp", "", str(error)])
by_tcp.join()
print(json.dumps({**counts, "lost": len(sent), "wrong": wrong}))
"""


class Builds(NamedTuple):
    """Two builds of the suite; the later one writes one thing more into the record of a name."""

    old: Path
    new: Path

    @property
    def names(self) -> tuple[str, str]:
        """The names of the builds' folders."""
        return (self.old / "build").read_text(), (self.new / "build").read_text()


@pytest.fixture(scope="session")
def builds(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Builds:
    """Return two builds."""
    new = tmp_path_factory.mktemp("later") / "bundle"
    shutil.copytree(bundle, new)
    (new / "build").write_text(_LATER)
    [compiled] = new.glob(f"lib/*/{_MODULE}c")
    text = (ROOT / _MODULE).read_text()
    assert _LINE in text
    source = compiled.with_suffix(".py")
    source.write_text(text.replace(_LINE, f'{_LINE}        "later": True,\n'))
    assert compileall.compile_file(source, quiet=1, legacy=True, force=True)
    source.unlink()
    return Builds(bundle, new)


@pytest.fixture(params=["cold", "warm"])
def node(request: pytest.FixtureRequest, empty_opt: Host) -> Host:
    """Return a host with nothing installed, whose calls are cold or warm."""
    setting = "warm-off" if request.param == "cold" else "warm.json"
    script = f"mkdir -p /etc/cni/pycni; echo '{{\"idleSeconds\": 1}}' > /etc/cni/pycni/{setting}"
    empty_opt.run(["sh", "-ec", script])
    return empty_opt


def install(host: Host, bundle: Path) -> str:
    """Install a bundle; return the output."""
    return host.run([str(bundle / "pycni"), "--install", "--no-self-test", "--units=no"])


@contextmanager
def asking(asker: Attached, server: str, questions: dict[str, tuple[int, str]]) -> Iterator[None]:
    """Ask from a container all the time, by UDP and TCP. Each query must get its code and its address."""
    command = [sys.executable, "-Ic", _CLIENT, server, json.dumps(questions), str(LONG_S)]
    with asker.sandbox.place.popen(command) as client:
        try:
            yield
            client.terminate()
            output, errors = client.communicate(timeout=2 * LONG_S)
        finally:
            client.kill()
    figures = json.loads(output or "{}")
    assert (errors, figures.pop("wrong"), figures.pop("lost")) == ("", [], 0)
    assert all(count > 20 for count in figures.values()), figures


def _in_use(folder: str) -> list[str]:
    """List what processes of this host have of a folder."""
    found = []
    own = Path("/proc/self/ns/mnt").readlink()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "ns/mnt").readlink() != own:
                continue
            links = [process / "exe", process / "cwd", *(process / "fd").iterdir()]
            shown = [str(each.readlink()) for each in links]
            shown += (process / "maps").read_text().split()
            found += [f"{process.name} {each}" for each in set(shown) if each.startswith(f"{folder}/")]
    return found


def served_by(host: Host) -> str:
    """Return the build of the one server that runs."""
    [pids] = servers(host)
    [folder] = {Path(f"/proc/{pid}/exe").readlink().relative_to(PREFIX).parts[0] for pid in pids}
    return folder


def replace(host: Host, bundle: Path, earlier: str) -> None:
    """Install a build over another, and the first time that the other is not in use, remove it."""
    assert "helper of dns: is of this build\n" in install(host, bundle)
    assert served_by(host) == (bundle / "build").read_text()
    wait_until(lambda: not host.call(_in_use, f"{PREFIX}/{earlier}"))
    # Launchers of the build may run for other tests, on hosts of theirs.
    wait_until(lambda: f"{earlier}: nothing runs from it any more, removed\n" in install(host, bundle))


def test_names_outlive_an_upgrade_and_the_way_back(node: Host, builds: Builds) -> None:
    host, (old, new) = node, builds.names
    net = Network(host, domainName="net1.test", upstreams=[])
    install(host, builds.old)
    asker, web, gone = (net.attach(each) for each in ("asker", "web", "gone"))
    questions = {"web": (0, web.addresses[0]), "nobody.net1.test": (3, "")}
    with asking(asker, net.gateway, questions):
        for bundle, earlier, name in ((builds.new, old, "one"), (builds.old, new, "two")):
            replace(host, bundle, earlier)
            # The attachments of the other build, and names of this one beside them.
            for each in (asker, web, gone):
                assert ask(asker.sandbox, each.args.rpartition("=")[2]) == ("NOERROR", [each.addresses[0]])
            net.call("CHECK", gone).must()
            net.detach(gone)
            assert ask(asker.sandbox, gone.args.rpartition("=")[2]) == NO
            gone = net.attach(name)
            assert ask(asker.sandbox, name) == ("NOERROR", [gone.addresses[0]])
            # Published again by this build, as after a restart of the container.
            net.call("ADD", asker).must()
            # One record is of the first build in any case.
            written = {True: 2, None: 1} if bundle == builds.new else {None: 3}
            assert Counter(each.get("later") for each in records(host)) == written


def _query(number: int, name: str) -> bytes:
    query = dns.message.make_query(name, "A", use_edns=0)
    query.id = number
    return query.to_wire()


def _ask_over_a_takeover(gateway: str) -> tuple[list[bytes], float]:
    """Let another build take over while queries are on their way. Return the answers and the seconds."""
    start_s = time.monotonic()
    with ExitStack() as stack:
        upstream, asker = (
            stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in "12"
        )
        upstream.bind((UPSTREAM, 53))
        half, idle = (stack.enter_context(socket.create_connection((gateway, 53))) for _ in "12")
        for each in (upstream, asker, half, idle):
            each.settimeout(LONG_S)
        by_tcp = b"".join(len(wire).to_bytes(2, "big") + wire for wire in [_query(7, "web")])
        half.sendall(by_tcp[:9])
        asker.sendto(_query(8, "slow.example.com"), (gateway, 53))
        query, server = upstream.recvfrom(1000)
        HELPER._replace(version="later").wake(until_done=True)
        upstream.sendto(query[:2] + b"\x81\x80" + query[4:], server)
        half.sendall(by_tcp[9:])
        idle.sendall(by_tcp)
        answers = [asker.recv(1000), half.recv(1000)[2:], idle.recv(1000)[2:]]
        # The earlier server closes what it has served, and is gone.
        assert [each.recv(1) for each in (half, idle)] == [b"", b""]
    return answers, time.monotonic() - start_s


@pytest.mark.modes("warm")
def test_queries_that_are_on_their_way_are_answered(host: Host) -> None:
    host.run(["ip", "link", "set", "lo", "up"])
    net = Network(host, upstreams=[UPSTREAM])
    net.attach("web")
    [(guard, _)] = servers(host)
    answers, took_s = host.call(_ask_over_a_takeover, net.gateway)
    # A query that waits for 4 s is answered by SERVFAIL, and a connection without one is closed then.
    if took_s < 4:
        assert [(each[1], each[3] & 15) for each in answers] == [(8, 0), (7, 0), (7, 0)]
    assert answers[0][1] == 8
    wait_until(lambda: not Path(f"/proc/{guard}").exists())
    assert ask(host, "web.net1.test")[0] == "NOERROR"


def command(host: Host, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the installed command as the runtime of a container `web` does."""
    env = {**BARE_ENV, "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=web"}
    return host.place.run([str(PREFIX / "bin/pycni"), *arguments], env=env, check=check)


def test_uninstalling_says_that_names_are_answered_no_longer(empty_opt: Host, bundle: Path) -> None:
    host = empty_opt
    host.run(["mkdir", "-p", "/etc/cni/net.d"])
    net = Network(host)
    plugins = [{**net.bridge, "ipMasq": False}, net.conf]
    # Debian's plugins, where they are installed, do not know this version.
    conf = {"cniVersion": "1.1.0", "name": net.name, "plugins": plugins}
    host.call(Path(f"/etc/cni/net.d/{net.name}.conflist").write_text, json.dumps(conf))
    install(host, bundle)
    sandbox = host.sandbox("web")
    result = json.loads(command(host, "add", net.name, sandbox.path).stdout)
    found = ("NOERROR", [result["ips"][0]["address"].partition("/")[0]])
    # Nothing is removed: no other plugin could delete the container.
    refused = command(host, "--uninstall", check=False)
    assert refused.returncode == 1
    assert f"\n  {net.name} " in refused.stderr
    assert ask(sandbox, "web") == found
    left = command(host, "--uninstall", "--attached=leave").stdout
    assert "helper of dns: ended\n" in left
    assert f"no process renews or serves any more: names of {net.name} at 10.1.0.1, fd01::1\n" in left
    assert is_silent(sandbox, "web", net.gateway)
    wait_until(lambda: not host.call(_in_use, str(PREFIX)))
    # The record is there, and the suite that comes back answers it again.
    install(host, bundle)
    command(host, "repair", net.name)
    assert ask(sandbox, "web") == found
    command(host, "check", net.name, sandbox.path)
    detached = command(host, "--uninstall", "--attached=detach").stdout
    assert ": detached\n" in detached
    assert is_silent(sandbox, "web", net.gateway)
    assert records(host) == []
    wait_until(lambda: not host.call(_in_use, str(PREFIX)))
