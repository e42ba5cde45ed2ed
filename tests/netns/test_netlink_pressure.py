"""The kernel may drop, interrupt or refuse a message for a moment: nothing is lost, and no call fails."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count, takewhile
from typing import TYPE_CHECKING, Any

import pytest

from cni import skel
from cni.errors import KernelError
from cni.firewall import nft
from cni.kernel import bridge, link, link_removal, netns, nfnetlink, route, veth
from cni.kernel.rtnetlink import Message, Netlink
from tests.support import scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cni.testing import Host


MAC, HOST_MAC = "02:00:00:00:00:05", "02:00:00:00:00:06"
ROUTES = 2000
LINKS = 80
# A busy machine may need that long until a list meets a change.
WITHIN_S = 300
RULESET = "table ip t { chain c { }; chain d { jump c; }; }"


class Narrow(Netlink):
    """A socket whose buffer holds next to nothing, and that tells how often a list was begun."""

    def __init__(self, receive_bytes: int = 0) -> None:
        super().__init__()
        self.lists = 0
        if receive_bytes:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)

    def leave_unread(self, messages: list[Message]) -> None:
        """Ask, and go away as an exception does: more answers than there is room for wait to be read."""
        for each in messages:
            self._send([each], 0x5)

    def begin_list(self) -> None:
        """Ask for the list of links and read none of it."""
        self._send([Message("list links", 18, body=bytes(16))], 0x301)

    def _dump_once(self, message: Message, *, settled: bool) -> list[bytes] | None:
        self.lists += 1
        return super()._dump_once(message, settled=settled)


def bridge_conf(**more: Any) -> dict[str, Any]:
    ipam = {"type": scene.IPAM, "ranges": [[{"subnet": "10.1.0.0/24"}]], **more.pop("ipam", {})}
    own = {"cniVersion": "1.1.0", "name": "net1", "type": scene.INTERFACE, "bridge": "br0", "isGateway": True}
    return {**own, "ipam": ipam, **more}


def make_bridges(nl: Netlink) -> list[str]:
    names = [f"stays{each}" for each in range(LINKS)]
    assert all(bridge.create(nl, name, link.new_mac()) for name in names)
    return [*names, "lo"]


def test_an_add_with_two_thousand_routes(host: Host) -> None:
    sandbox = host.sandbox("c1")
    routes = [{"dst": f"10.{2 + each // 256}.{each % 256}.0/24"} for each in range(ROUTES)]
    conf = bridge_conf(ipam={"routes": routes})
    result = host.plugin(scene.INTERFACE, "ADD", conf, netns=sandbox).must()
    through = sandbox.json(["ip", "-j", "route", "show", "via", "10.1.0.1"])
    assert {each["dst"] for each in through} == {each["dst"] for each in routes}
    host.plugin(scene.INTERFACE, "CHECK", conf | {"prevResult": result}, netns=sandbox).must()
    host.plugin(scene.INTERFACE, "DEL", conf, netns=sandbox).must()
    assert sandbox.links() == ["lo"]


def test_each_of_many_refusals_is_reported(host: Host) -> None:
    """A refusal has a text, and needs more room than an acknowledgement."""

    def run() -> None:
        with Netlink() as nl:
            assert bridge.create(nl, "br0", MAC)
            index = link.get(nl, "br0").index
            wrong = [link.set_mtu(f"br{each}", index, 1 << 20) for each in range(ROUTES)]
            wrong[1000] = link.set_mtu("br0", index, 1400)
            refusals = nl.attempt(wrong)
            assert refusals[1000] is None
            assert [each.msg.split('"')[1] for each in refusals if each] == [
                f"br{each}" for each in range(ROUTES) if each != 1000
            ]
            assert link.get(nl, "br0").mtu == 1400

    host.call(run)


@pytest.mark.parametrize("receive_bytes", [1, 5000])
def test_a_list_is_whole_whatever_the_buffer_holds(host: Host, receive_bytes: int) -> None:
    def run() -> None:
        with Netlink() as wide, Narrow(receive_bytes) as nl:
            names = make_bridges(wide)
            for _ in range(20):
                assert sorted(each.name for each in link.list_links(nl)) == sorted(names)

    host.call(run)


def test_a_list_is_asked_for_again_when_answers_were_dropped(host: Host) -> None:
    def run() -> None:
        with Netlink() as wide, Narrow(1) as nl:
            names = make_bridges(wide)
            nl.leave_unread([link.set_flags("lo", 1)] * 50)
            assert sorted(each.name for each in link.list_links(nl)) == sorted(names)
            assert nl.lists > 1

    host.call(run)


def test_a_list_is_asked_for_again_when_another_one_was_not_read_to_its_end(host: Host) -> None:
    def run() -> None:
        with Netlink() as wide, Narrow(1) as nl:
            names = make_bridges(wide)
            nl.begin_list()
            assert sorted(each.name for each in link.list_links(nl)) == sorted(names)
            assert nl.lists > 1

    host.call(run)


def test_every_link_that_stays_is_listed_once_while_others_come_and_go(host: Host) -> None:
    def run() -> None:
        with Narrow() as nl:
            stay = sorted(make_bridges(nl))
            seen: set[str] = set()
            with going_on(come_and_go):
                deadline = time.monotonic() + WITHIN_S
                for rounds in count(1):
                    names = [each.name for each in link.list_links(nl)]
                    assert sorted(name for name in names if not name.startswith("goes")) == stay
                    assert max(Counter(names).values()) == 1
                    seen.update(name for name in names if name.startswith("goes"))
                    if (len(seen) > 20 and nl.lists > rounds + 3) or time.monotonic() > deadline:
                        break
            assert len(seen) > 20, "no link came and went"
            assert nl.lists > rounds + 3, "no list was disturbed"

    host.call(run)


def come_and_go() -> None:
    """Add and remove bridges until this process is killed or its parent has ended."""
    parent = os.getppid()
    with Netlink() as nl:
        for number in takewhile(lambda _: os.getppid() == parent, count()):
            names = [f"goes{number}-{each}" for each in range(5)]
            for each in names:
                bridge.create(nl, each, link.new_mac())
            for each in names:
                link.remove(nl, each)


@contextmanager
def going_on(work: Callable[[], None]) -> Iterator[None]:
    """Run work in a child process until the context ends."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_chain_that_is_still_referred_to_stays_and_is_no_error(host: Host) -> None:
    """The kernel refuses with EBUSY; who deletes it looks again at what is there."""
    host.run(["nft", "-f", "-"], RULESET)

    def run() -> None:
        chain = nft.delete_chain(nft.IPV4, "t", "c")
        with pytest.raises(KernelError, match="busy"):
            nfnetlink.kept().commit([chain])
        assert both(partial(nft.commit_deletions, [chain])) == [False, False]
        assert nft.list_chains(nft.IPV4, "t") == ["c", "d"]

    host.call(run)


def test_of_two_processes_that_delete_a_chain_one_does_and_the_other_hears_of_it(host: Host) -> None:
    def run() -> None:
        for _ in range(30):
            assert nft.run_text(RULESET, "prepare")
            (jump,) = nft.list_rules(nft.IPV4, "t", "d")
            gone = [nft.delete_rule(jump), nft.delete_chain(nft.IPV4, "t", "c")]
            assert sorted(both(partial(nft.commit_deletions, gone))) == [False, True]
            assert nft.list_chains(nft.IPV4, "t") == ["d"]

    host.call(run)


def both(work: Callable[[], bool]) -> list[bool]:
    """Run work in two child processes at the same moment. Return the result of each."""
    start, go = os.pipe()
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            status = 2
            try:
                os.close(go)
                os.read(start, 1)
                status = int(work())
            finally:
                os._exit(status)
        children.append(child)
    os.close(start)
    os.close(go)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert set(codes) <= {0, 1}, codes
    return [code == 1 for code in codes]


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_alarms_all_the_time_disturb_no_call(host: Host, backend: str) -> None:
    sandbox = host.sandbox("c1")
    conf = bridge_conf(ipMasq=True, ipMasqBackend=backend, macspoofchk=True)

    def call(verb: str, stdin: dict[str, Any]) -> dict[str, Any]:
        env = {
            "CNI_COMMAND": verb, "CNI_CONTAINERID": "c1", "CNI_NETNS": sandbox.path,
            "CNI_IFNAME": "eth0", "CNI_PATH": str(host.bindir),
        }  # fmt: skip
        stdout = io.BytesIO()
        status = skel.run(
            lambda: scene.load(scene.INTERFACE), env, io.BytesIO(json.dumps(stdin).encode()), stdout
        )
        assert status == 0, stdout.getvalue()
        return dict(json.loads(stdout.getvalue() or "{}"))

    def run() -> int:
        alarms = count()
        signal.signal(signal.SIGALRM, lambda *_: next(alarms))
        signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
        for _ in range(3):
            result = call("ADD", conf)
            call("CHECK", conf | {"prevResult": result})
            call("DEL", conf)
        signal.setitimer(signal.ITIMER_REAL, 0)
        return next(alarms)

    before = host.snapshot()
    host.plugin(scene.INTERFACE, "ADD", conf, netns=sandbox).must()
    host.plugin(scene.INTERFACE, "DEL", conf, netns=sandbox).must()
    after_one = host.snapshot()
    assert host.call(run) > 100
    assert after_one.differences(host.snapshot()) == []
    assert [each for each in before.differences(after_one) if "veth" in each] == []


def test_a_removal_that_fails_in_an_unforeseen_way_is_over_and_told(host: Host) -> None:
    """A call that waits for the removal must not wait for ever."""
    path = host.sandbox("c1").path

    def run() -> None:
        with netns.open_netns(path) as ns, Netlink() as nl:
            assert veth.create(nl, veth.VethSpec("veth0", HOST_MAC, "eth0", MAC, ns))
            found = link.get(nl, "veth0")
            sender, stack = Netlink(), ExitStack()
            sender.close()
            stack.callback(os.close, -1)
            removal = link_removal.Removal(sender, link.removal(found.name, found.index), stack)
            removal.run()
            assert removal.is_over
            assert isinstance(removal.error, OSError)
            assert isinstance(removal.error.__context__, KernelError)
            assert link.find(nl, "veth0") is not None

    host.call(run)


def test_a_message_that_cannot_be_sent_is_an_error_of_the_kernel(host: Host) -> None:
    def run() -> None:
        with Netlink() as nl:
            huge = Message("say very much", 16, body=bytes(1 << 22))
            with pytest.raises(KernelError, match="say very much: message too long"):
                nl.batch([huge])
            assert route.list_routes(nl, 1) == []

    host.call(run)
