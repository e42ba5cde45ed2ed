"""`make demo`: attach containers, show and check every step, and change nothing of the machine.

Everything happens in namespaces of a process that ends with this one. Its steps use the installed
executables through the `pycni` command, and read the resulting state from the kernel.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from cni.kernel.child import run
from cni.testing import Host, Sandbox, why_no_namespaces
from cni.testing.place import BARE_ENV
from demo_networks import Networks
from narrator import Narrator, StepError
from plugin_table import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.testing.snapshot import Snapshot

HOME = ROOT / "dist/demo"
NETWORK = "10-bridge"
PICTURE = "networks.svg"
PORTS: dict[str, object] = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
# The errors of a failing step: a check of ours or of the test library, a program, the system.
EXPECTED = (StepError, AssertionError, OSError, RuntimeError, ValueError, subprocess.SubprocessError)
HELLO = "Hello from the container web!"
ABOUT = """\
CNI plugins do the network part of `docker run -p 8080:80` and `docker network`, step by step.
They run in private namespaces: interfaces, rules and files of this machine do not change."""


def main() -> int:
    """Run the whole demonstration. Return 1 when a step fails."""
    tell = Narrator()
    tell.title("pycni", ABOUT)
    if why_no_namespaces():
        tell.fail(f"{why_no_namespaces()}; try it as root")
        return 1
    try:
        before = _own_links()
        bindir = install(tell)
        with Host(bindir) as host, TemporaryDirectory() as site:
            Demo(tell, host, Path(site)).play()
        tell.step("The namespaces end with the demonstration")
        tell.check("this machine's own links have not changed", _own_links(), before)
    except KeyboardInterrupt:
        tell.fail("interrupted")
        return 1
    except EXPECTED as error:
        tell.fail(str(error))
        return 1
    tell.end(f"All {tell.checks} checks hold.")
    return 0


def install(tell: Narrator) -> Path:
    """Install the suite beside the sources, as `make install` does elsewhere. Return its BINDIR."""
    tell.step("Install the plugins")
    places = [f"--{name}={HOME / folder}" for name, folder in PLACES.items()]
    done = run([str(ROOT / "dist/bundle/pycni"), "--install", *places], timeout_s=600)
    if done.status:
        raise StepError(f"the installation failed: {done.stderr}")
    tell.say("Runtimes look for plugins as executables in one folder, /opt/cni/bin by default.")
    tell.show("in dist/demo/bin now:", [" ".join(sorted(path.name for path in (HOME / "bin").iterdir()))])
    return HOME / "bin"


PLACES = {"bindir": "bin", "prefix": "opt", "confdir": "net.d"}


class Demo:
    """The demonstration, on a separate host."""

    def __init__(self, tell: Narrator, host: Host, site: Path) -> None:
        self.tell = tell
        self.host = host
        self.site = site
        (site / "index.html").write_text(HELLO)

    def play(self) -> None:
        """Attach two containers, show the result, and remove them."""
        self.prepare()
        before = self.host.snapshot()
        web = self.attach("web", PORTS)
        self.explain_bridge(web)
        self.explain_rules()
        client = self.attach("client")
        with self.serving(web):
            self.reach(web, client)
        self.leave(web)
        self.isolated(web, client)
        self.tell.step("The network in one view")
        self.tell.command("pycni show")
        self.tell.tree(self.pycni("show"))
        self.remove(web, client, before)
        self.connect_networks()

    def prepare(self) -> None:
        """Show the host, the outside and the network's configuration."""
        self.tell.step("A host with a connection to the outside")
        outside = self.host.outside
        self.tell.say(f"A new network namespace is the host. {outside.address} stands for the internet.")
        self.tell.show("ip -br -4 addr", self.host.run(["ip", "-br", "-4", "addr"]).splitlines())
        self.host.run(["mkdir", "-p", "/etc/cni/net.d"])
        conf = (ROOT / f"conf/{NETWORK}.conflist").read_text()
        self.host.run(["sh", "-c", f"cat > /etc/cni/net.d/{NETWORK}.conflist"], conf)
        self.tell.say(f"The network is conf/{NETWORK}.conflist: `bridge`, with addresses from `host-local`,")
        self.tell.say(
            "and `portmap` for published ports. It corresponds to a network of `docker network create`."
        )

    def attach(self, name: str, capabilities: dict[str, object] | None = None) -> Sandbox:
        """Make a container's namespace and attach it."""
        published = f", port 8080 published to its port {80}" if capabilities else ""
        self.tell.step(f"Container {name}{published}")
        sandbox = self.host.sandbox(name)
        self.tell.say("For its network a container is a namespace, empty at first. As containerd does, run")
        self.tell.say("loopback for it, then the plugins of the network by the command `pycni`:")
        loopback = {"cniVersion": "1.1.0", "name": "lo", "type": "loopback"}
        self.host.plugin("loopback", "ADD", loopback, netns=sandbox, container_id=name, ifname="lo").must()
        words = ["pycni", "add", "pycni", sandbox.path]
        self.tell.command(*([f"CAP_ARGS='{json.dumps(capabilities)}'"] if capabilities else []), *words)
        result = json.loads(self.pycni(*words[1:], capabilities=capabilities))
        address = result["ips"][0]["address"]
        self.tell.check("the plugins' answer and the kernel agree", sandbox.addresses("eth0"), [address])
        return sandbox

    def explain_bridge(self, web: Sandbox) -> None:
        """Show the links, addresses and routes that `bridge` has made."""
        ports = self.host.json(["ip", "-j", "link", "show", "master", "pycni0"])
        veth = ports[0]["ifname"]
        self.tell.say(f"bridge made a veth pair: eth0 in the container, {veth} on the host,")
        self.tell.say("a port of the bridge pycni0. Docker calls its bridge docker0.")
        self.tell.show("on the host, bridge link", self.host.run(["bridge", "link"]).splitlines())
        self.tell.show("in the container, ip -br addr", web.run(["ip", "-br", "addr"]).splitlines())
        self.tell.show("in the container, ip route", web.run(["ip", "route"]).splitlines())
        self.tell.say("host-local chose the address and keeps it in a file named after it:")
        self.tell.show("/var/lib/cni/networks/pycni", self._leases())

    def explain_rules(self) -> None:
        """Show the rules that publish the port and let the container out."""
        rules = self.host.run(["nft", "list", "ruleset"]).splitlines()
        self.tell.say(
            "portmap put the host port into a map that the DNAT rule looks up: Docker's -p 8080:80."
        )
        self.tell.show("nft list map ip pycni ports", [_short(line) for line in rules if "8080" in line])
        self.tell.show("the rule", [line.strip() for line in rules if "map @ports" in line])
        self.tell.say("And bridge masquerades what leaves the network, as Docker does for its networks:")
        self.tell.show("the rule", [line.strip() for line in rules if "!= 10." in line and "masq" in line])

    def reach(self, web: Sandbox, client: Sandbox) -> None:
        """Request the page of the web server from everywhere."""
        self.tell.step("Reach the web server in web")
        address = web.addresses("eth0")[0].split("/")[0]
        outside = self.host.outside
        public = outside.host_address
        for where, inside, target in (
            (f"from outside, http://{public}:8080/", outside.sandbox, (public, 8080)),
            ("from the host itself, http://127.0.0.1:8080/", self.host, ("127.0.0.1", 8080)),
            (f"container to container, http://{address}/", client, (address, 80)),
            (f"from client by the published port, http://{public}:8080/", client, (public, 8080)),
        ):
            self.tell.check(where, inside.call(_fetch, *target), HELLO)

    def leave(self, web: Sandbox) -> None:
        """Connect from a container to the outside, and check which address the outside sees."""
        self.tell.step("From a container to the outside")
        outside = self.host.outside
        with outside.sandbox.serve(7):
            seen = web.dial(outside.address, 7).address
        self.tell.say("The outside has no route to 10.85.0.0/16 and answers the address that it sees.")
        self.tell.check("it sees the host's address, not the container's", seen, outside.host_address)

    def isolated(self, web: Sandbox, client: Sandbox) -> None:
        """Show that each container has a network of its own."""
        self.tell.step("Two containers, two networks of their own")
        self.tell.check("links that web has", web.links(), ["lo", "eth0"])
        self.tell.check("links that client has", client.links(), ["lo", "eth0"])
        with self.serving(web):
            mine = client.call(_fetch_or_error, "127.0.0.1", 80)
        self.tell.check("web's port 80, asked for on client's own localhost", mine, "connection refused")
        address = web.addresses("eth0")[0].split("/")[0]
        direct = self.host.outside.sandbox.call(_fetch_or_error, address, 80)
        self.tell.check("web's address, asked for from outside", direct, "network is unreachable")

    def remove(self, web: Sandbox, client: Sandbox, before: Snapshot) -> None:
        """Detach both containers and prove that nothing of them remains."""
        self.tell.step("Detach both containers")
        for sandbox, capabilities in ((web, PORTS), (client, None)):
            self.tell.command("pycni", "del", "pycni", sandbox.path)
            self.pycni("del", "pycni", sandbox.path, capabilities=capabilities)
        self.tell.check("ports of the bridge", self.host.run(["bridge", "link"]), "")
        self.tell.check("addresses that are leased", self._leases(), [])
        self.tell.check("links that web has", web.links(), ["lo"])
        rules = self.host.run(["nft", "list", "ruleset"])
        self.tell.check("rules that name a container", [x for x in rules.splitlines() if "id: " in x], [])
        web.delete()
        client.delete()
        self.tell.say(
            "The bridge and empty tables stay for the next container, as docker0 does; without them:"
        )
        self.host.run(["ip", "link", "delete", "pycni0"])
        self.host.run(["nft", "delete", "table", "ip", "pycni"])
        left = [line for line in before.differences(self.host.snapshot()) if line.startswith("+")]
        self.tell.check("links, addresses, routes, rules and files that were not there before", left, [])

    def connect_networks(self) -> None:
        """Show networks, names and ports as the words of Docker's commands make them."""
        networks = Networks(self.tell, self.host, HOME / "opt/bin/pycni", _fetch_or_error, HELLO)
        web, db = networks.create()
        with self.serving(web), self.serving(db):
            networks.connect(web, db)
            networks.publish()
        networks.draw(HOME / PICTURE)
        networks.remove(web, db)

    def pycni(self, *words: str, capabilities: dict[str, object] | None = None) -> str:
        """Run the installed command and return its output. Raises CommandError."""
        asked = {"CAP_ARGS": json.dumps(capabilities)} if capabilities else {}
        return self.host.run([str(HOME / "opt/bin/pycni"), *words], env=BARE_ENV | asked)

    def _leases(self) -> list[str]:
        listed = self.host.run(["ls", "/var/lib/cni/networks/pycni"]).split()
        return [name for name in listed if name[0].isdigit()]

    @contextmanager
    def serving(self, sandbox: Sandbox) -> Iterator[None]:
        """Run a web server on port 80 of a container."""
        command = [sys.executable, "-m", "http.server", "--directory", str(self.site), "80"]
        server = sandbox.place.popen(command)
        try:
            _wait_for(sandbox)
            yield
        finally:
            server.terminate()
            server.communicate()


def _wait_for(sandbox: Sandbox, timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while sandbox.call(_fetch_or_error, "127.0.0.1", 80) != HELLO:
        if time.monotonic() > deadline:
            raise StepError(f"the web server in {sandbox.name} did not start")
        time.sleep(0.05)


def _fetch(address: str, port: int) -> str:
    connection = HTTPConnection(address, port, timeout=5)
    connection.request("GET", "/")
    return connection.getresponse().read().decode()


def _fetch_or_error(address: str, port: int) -> str:
    try:
        return _fetch(address, port)
    except OSError as error:
        return os.strerror(error.errno).lower() if error.errno else str(error)
    except HTTPException as error:
        return str(error)


def _short(line: str) -> str:
    """Return the line without the comment that names the owner of an element."""
    before, _, rest = line.strip().partition(' comment "')
    return before + rest.partition('"')[2] if rest else before


def _own_links() -> list[str]:
    return sorted(path.name for path in Path("/proc/sys/net/ipv4/conf").iterdir())


if __name__ == "__main__":
    sys.exit(main())
