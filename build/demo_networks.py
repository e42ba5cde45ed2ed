"""The part of `make demo` about networks, names and ports that change while containers run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.testing.place import BARE_ENV

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cni.testing import Host, Sandbox
    from narrator import Narrator

_NAME = "IgnoreUnknown=1;K8S_POD_NAME="


class Networks:
    """Two networks, the containers web and db on them, and what connects them.

    `fetch` returns the page of the server at an address and a port, or why there is none. `page` is db's and
    web's.
    """

    def __init__(
        self, tell: Narrator, host: Host, command: Path, fetch: Callable[[str, int], str], page: str
    ) -> None:
        self.tell = tell
        self.host = host
        self.command = command
        self.fetch = fetch
        self.page = page

    def create(self) -> tuple[Sandbox, Sandbox]:
        """Create the networks, attach a container to each, and return the containers."""
        self.tell.step("Two networks, as with docker network create")
        self.pycni("network", "create", "--isolate", "front")
        self.pycni("network", "create", "--isolate", "--internal", "back")
        self.tell.show("pycni network ls", self.pycni("network", "ls", quiet=True).splitlines())
        self.tell.say("A container runtime passes the containers' names; here CNI_ARGS does.")
        return self._attach("front", "web"), self._attach("back", "db")

    def _attach(self, network: str, name: str) -> Sandbox:
        sandbox = self.host.sandbox(name)
        sandbox.run(["ip", "link", "set", "lo", "up"])
        self.pycni("add", network, name, name=name)
        return sandbox

    def connect(self, web: Sandbox, db: Sandbox) -> None:
        """Show that the networks are isolated, and connect a running container to both."""
        self.tell.step("Isolation, names, and a container that joins a network while it runs")
        address = db.addresses("eth0")[0].split("/")[0]
        is_reached = "yes" if web.reaches(address, 80) else "no"
        self.tell.check("web reaches db, which is on another network", is_reached, "no")
        self.tell.check("what web is answered for the name db", self._ask("db", "web"), "")
        self.pycni("network", "connect", "--alias", "www", "back", "web")
        self.tell.check("links that web has", web.links(), ["lo", "eth0", "eth1"])
        self.tell.check("what web is answered for the name db", self._ask("db", "web"), address)
        self.tell.check(
            f"from web, http://db/, which is {address}", web.call(self.fetch, address, 80), self.page
        )
        own = web.addresses("eth1")[0].split("/")[0]
        self.tell.check("what db is answered for web's alias www", self._ask("www", "db"), own)

    def publish(self) -> None:
        """Publish a port of a running container, and take it back."""
        self.tell.step("A port that is published while the container runs")
        outside = self.host.outside
        public, peer = outside.host_address, outside.sandbox
        self.pycni("publish", "web", "8081:80")
        self.tell.check(
            f"from outside, http://{public}:8081/", peer.call(self.fetch, public, 8081), self.page
        )
        self.pycni("unpublish", "web", "8081")
        refused = peer.call(self.fetch, public, 8081)
        self.tell.check("the same after pycni unpublish", refused, "connection refused")

    def draw(self, file: Path) -> None:
        """Draw the networks to a file."""
        self.tell.step("The networks as a picture")
        self.tell.command("pycni", "show", "--picture", file.name)
        self.pycni("show", "--picture", str(file), quiet=True)
        self.tell.check(
            "it shows",
            [each for each in ("front", "back", "web", "db") if each in file.read_text()],
            ["front", "back", "web", "db"],
        )
        self.tell.say(f"A browser opens {file.name} in dist/demo.")

    def remove(self, web: Sandbox, db: Sandbox) -> None:
        """Detach the containers and remove the networks."""
        self.tell.step("Remove the networks")
        self.pycni("network", "disconnect", "back", "web")
        self.pycni("del", "front", "web", name="web")
        self.pycni("del", "back", "db", name="db")
        self.pycni("network", "prune", "--force")
        links = [link for sandbox in (web, db) for link in sandbox.links()]
        self.tell.check("links that web and db have", links, ["lo", "lo"])
        self.tell.check(
            "networks", self.pycni("network", "ls", "-q", "--filter", "created-by=pycni", quiet=True), ""
        )
        web.delete()
        db.delete()

    def _ask(self, name: str, asker: str) -> str:
        return self.host.run(
            [str(self.command), "dns", "query", name, "--as", asker], env=BARE_ENV, check=False
        ).strip()

    def pycni(self, *words: str, name: str = "", quiet: bool = False) -> str:
        """Run the installed command, show it unless it is `quiet`, and return its output."""
        args = {"CNI_ARGS": f"{_NAME}{name}"} if name else {}
        if not quiet:
            self.tell.command("pycni", *words)
        return self.host.run([str(self.command), *words], env=BARE_ENV | args)
