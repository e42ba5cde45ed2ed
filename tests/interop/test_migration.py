"""A node moves from Debian's Go plugins to ours and back, under load: only the folder of plugins changes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import GO, warm
from cni.testing.executables import make_warm_bindir
from plugin_table import declared, packages
from tests.interop.streams import Echo, Stream
from tests.support import scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from cni.testing import Answer, Host, Sandbox

pytestmark = [
    pytest.mark.interop,
    scene.needs_go,
]

COUNT = 50
NEW = 10
PORT = 80
OF_GO, OF_OURS = 8000, 9000


class Node:
    """A node with two networks; `bindir` is where its runtime looks for plugins, a link that is changed."""

    def __init__(self, host: Host, ours: Path) -> None:
        self.host = host
        self.ours = ours
        self.bindir = ours.parent / "cni-bin"
        self.results: dict[str, dict[str, Any]] = {}
        self.sandboxes: dict[str, Sandbox] = {}
        self.move_to(GO)

    def move_to(self, plugins: Path) -> None:
        """Put a suite in the place of the other."""
        self.bindir.unlink(missing_ok=True)
        self.bindir.symlink_to(plugins)

    def plugins(self, name: str, port: int) -> list[dict[str, Any]]:
        """Return the conflist's plugins for a container, whose name ends in its number."""
        network = int(name[1:]) % 2
        ipam = {
            "type": scene.IPAM,
            "ranges": [[{"subnet": f"10.{80 + network}.0.0/24"}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        }
        common = {"cniVersion": "1.0.0", "name": f"net{network}"}
        bridge = {
            "type": scene.INTERFACE,
            "bridge": f"br{network}",
            "isGateway": True,
            "ipMasq": True,
            "ipam": ipam,
        }
        mapping = {"hostPort": port, "containerPort": PORT, "protocol": "tcp"}
        portmap = {"type": scene.PORTS, "runtimeConfig": {"portMappings": [mapping]}}
        return [common | bridge, common | portmap]

    def try_add(self, name: str, port: int) -> Answer:
        """Attach, undoing what was made when a plugin of the chain fails, as runtimes do."""
        self.sandboxes.setdefault(name, self.host.sandbox(name))
        bridge, portmap = self.plugins(name, port)
        answer = self._call("ADD", name, bridge)
        result = answer.must()
        answer = self._call("ADD", name, portmap | {"prevResult": result})
        if answer.ok:
            self.results[name] = answer.json
        else:
            self._call("DEL", name, portmap | {"prevResult": result}).must()
            self._call("DEL", name, bridge).must()
        return answer

    def add(self, name: str, port: int) -> None:
        self.try_add(name, port).must()

    def check(self, name: str, port: int) -> None:
        for conf in self.plugins(name, port):
            answer = self._call("CHECK", name, conf | {"prevResult": self.results[name]})
            if conf["type"] == scene.PORTS and self.bindir.resolve() == GO.resolve():
                # This release wants IPv6 rules of every container, its own too, when all others are right.
                assert answer.msg.startswith("could not check ipv6 dnat: "), answer
            else:
                answer.must()

    def delete(self, name: str, port: int) -> None:
        result = self.results.pop(name)
        for conf in reversed(self.plugins(name, port)):
            self._call("DEL", name, conf | {"prevResult": result}).must()

    def collect(self, valid: Iterable[str]) -> None:
        """Call GC of both networks, as a runtime of CNI 1.1 does."""
        attachments = [{"containerID": name, "ifname": "eth0"} for name in valid]
        keys = {"cniVersion": "1.1.0", "cni.dev/valid-attachments": attachments}
        for name in ("c0", "c1"):
            for conf in self.plugins(name, OF_GO):
                self.host.plugin(
                    conf["type"], "GC", conf | keys, bindir=self.bindir, container_id="", ifname=""
                ).must()

    def address(self, name: str) -> str:
        return str(self.results[name]["ips"][0]["address"]).split("/")[0]

    def _call(self, verb: str, name: str, conf: dict[str, Any]) -> Answer:
        return self.host.plugin(
            conf["type"],
            verb,
            conf,
            netns=self.sandboxes[name],
            container_id=name,
            bindir=self.bindir,
        )


@pytest.fixture
def node(host: Host, tmp_path: Path, launcher: Path) -> Node:
    warm.set_up(host.place)
    return Node(host, make_warm_bindir(tmp_path, packages(declared()), launcher))


def _all(step: Callable[[str, int], object], ports: dict[str, int]) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(step, ports, ports.values()))


def _streams(node: Node, stack: ExitStack, kept: dict[str, int]) -> Iterator[Stream]:
    """Open connections of every kind, each with an end at another of the containers that stay."""
    outside = node.host.outside
    names = iter(kept)

    def served() -> str:
        name = next(names)
        stack.enter_context(Echo(node.sandboxes[name].place, PORT))
        return name

    def stream(what: str, place: Any, address: str, port: int) -> Stream:
        return stack.enter_context(Stream(what, place, address, port))

    stack.enter_context(Echo(outside.sandbox.place, 81))
    for _ in range(2):
        name = served()
        what = f"outside to the published port of {name}"
        yield stream(what, outside.sandbox.place, outside.host_address, kept[name])
    name = served()
    yield stream(f"the host to the published port of {name}", node.host.place, "127.0.0.1", kept[name])
    for _ in range(2):
        name, client = served(), next(names)
        yield stream(f"{client} to {name}", node.sandboxes[client].place, node.address(name), PORT)
    for _ in range(2):
        client = next(names)
        yield stream(f"{client} to outside", node.sandboxes[client].place, outside.address, 81)


def _traces(node: Node, names: Iterable[str]) -> list[str]:
    """Return the lines of rules and files that tell of containers."""
    snapshot = node.host.snapshot()
    told = [f'"{name}\\"' for name in names] + [f"b'{name}\\r\\neth0'" for name in names]
    return [line for line in [*snapshot.rules, *snapshot.files] if any(each in line for each in told)]


def _unexpected(left: Iterable[str]) -> list[str]:
    """List what Go's DEL leaves of ours, but for what is there for the next container of either network."""
    gateways = [line for line in left if "CNI-GW-" in line or "CNI-HOSTPORT-GATEWAYS" in line]
    assert sum(":CNI-GW-" in line for line in gateways) == 2
    # Go's plugins know nothing of our ledger of host ports; its entries end with the namespaces.
    others = [line for line in left if line not in gateways]
    return [line for line in others if not line.startswith("+ files: /run/pycni/")]


def test_a_node_moves_to_ours_and_back_and_no_connection_breaks(node: Node) -> None:
    host, outside = node.host, node.host.outside
    for name in ("c100", "c101"):
        # What Go leaves for the next container: bridges, shared chains, settings.
        node.add(name, OF_GO - 1)
        node.delete(name, OF_GO - 1)
        node.sandboxes.pop(name).delete()
    before = host.snapshot()

    of_go = {f"c{number}": OF_GO + number for number in range(COUNT)}
    # Every fourth pair of containers, so that both networks have both.
    leaving = {name: port for name, port in of_go.items() if int(name[1:]) % 4 >= 2}
    kept = {name: port for name, port in of_go.items() if name not in leaving}
    of_ours = {f"c{number}": OF_OURS + number for number in range(COUNT, COUNT + NEW)}
    _all(node.add, of_go)
    links = set(host.links())
    assert len({node.address(name) for name in of_go}) == COUNT

    with ExitStack() as stack:
        streams = list(_streams(node, stack, kept))
        for stream in streams:
            stream.must_flow()

        node.move_to(node.ours)
        _all(node.check, of_go)
        refused = node.try_add("c98", of_go["c0"])
        assert (refused.code, '"c0"' in refused.msg) == (103, True), refused
        _all(node.add, of_ours)
        assert len({node.address(name) for name in node.results}) == COUNT + NEW
        served, port = next(iter(of_ours.items()))
        stack.enter_context(Echo(node.sandboxes[served].place, PORT))
        what = f"outside to the published port of {served}, which is ours"
        late = Stream(what, outside.sandbox.place, outside.host_address, port)
        streams.append(stack.enter_context(late))

        _all(node.delete, leaving)
        assert _traces(node, leaving) == []
        gone = links - set(host.links())
        assert len(gone) == len(leaving)
        # A port of the Go plugins is free after our DEL.
        again = next(iter(leaving.values()))
        node.add("c99", again)
        node.collect([*kept, *of_ours, "c99"])
        _all(node.check, kept | of_ours)
        for stream in streams:
            stream.must_flow()

        node.move_to(GO)
        _all(node.check, kept | of_ours)
        for stream in streams:
            stream.must_flow()
        for stream in streams:
            stream.end()

    _all(node.delete, kept | of_ours | {"c99": again})
    for sandbox in node.sandboxes.values():
        sandbox.delete()
    assert _unexpected(before.differences(host.snapshot())) == []
