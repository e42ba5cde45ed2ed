"""Network lists of real projects, with the plugins of this suite only: a life of two containers on each.

tests/data/networks has the lists, tests/data/networks.json their projects and what each must provide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.errors import CniError
from tests.interop.real_lists import FOLDER, PORT, TABLE, RealList
from tests.interop.stand_ins import write_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cni.testing import Host, Sandbox

pytestmark = [pytest.mark.interop, pytest.mark.modes("warm")]

WAIT_S = 10
# A cold call costs ten times as much as a warm one.
COLD = "singularity-00-bridge"


def _rows(*, working: bool) -> list[Any]:
    chosen = [row for row in TABLE if ("error" in row) != working]
    marks = {
        row["what"]: [pytest.mark.needs_kernel(row["needs_kernel"])] for row in TABLE if "needs_kernel" in row
    }
    return [
        pytest.param(row, id=row["what"].rpartition(".")[0], marks=marks.get(row["what"], []))
        for row in chosen
    ]


@pytest.fixture(scope="session")
def stand_ins(bindir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of programs that stand for plugins of third parties."""
    folder = tmp_path_factory.mktemp("third")
    write_all(folder, bindir)
    return folder


@pytest.fixture
def listed(host: Host, stand_ins: Path, row: dict[str, Any]) -> Iterator[RealList]:
    """Yield a host with the list as its only network."""
    listed = RealList(host, row, stand_ins)
    try:
        yield listed
    finally:
        listed.close()


class Asker:
    """The questions of traffic, by the words in the table; `web` serves port 80."""

    def __init__(self, listed: RealList, web: Sandbox, other: Sandbox | None, addresses: list[str]) -> None:
        self.listed = listed
        self.host = listed.host
        self.outside = listed.host.outside
        self.web = web
        self.other = other
        self.addresses = addresses

    def _outer(self, address: str) -> tuple[str, str]:
        """Return the addresses of the peer outside and of the host, of an address's family."""
        if ":" in address:
            return self.outside.address6, self.outside.host_address6
        return self.outside.address, self.outside.host_address

    def host_to_it(self, address: str) -> None:
        """The host reaches the container."""
        assert self.host.reaches(address, 80, timeout_s=WAIT_S)

    def neighbour(self, address: str) -> None:
        """Another container of the network reaches it."""
        assert self.other
        assert self.other.reaches(address, 80, timeout_s=WAIT_S)

    def itself(self, address: str) -> None:
        """The container reaches its own address."""
        assert self.web.reaches(address, 80, timeout_s=WAIT_S)

    def published(self, address: str) -> None:
        """The peer outside and the host reach the published port."""
        target, host_address = self._outer(address)
        assert self.outside.sandbox.dial(host_address, PORT).address == target
        assert self.host.reaches(host_address, PORT, timeout_s=WAIT_S)

    def hairpin(self, address: str) -> None:
        """The container reaches its own published port by the host's address."""
        _, host_address = self._outer(address)
        assert self.web.reaches(host_address, PORT, timeout_s=WAIT_S)

    def shared(self, address: str) -> None:
        """Another container of the network reaches the published port by the host's address."""
        assert self.other
        _, host_address = self._outer(address)
        assert self.other.reaches(host_address, PORT, timeout_s=WAIT_S)

    def out(self, address: str) -> None:
        """The container reaches the peer outside, which sees the host."""
        target, host_address = self._outer(address)
        with self.outside.sandbox.serve(7):
            assert self.web.dial(target, 7).address == host_address

    def routed(self, address: str) -> None:
        """The container reaches the peer outside, which sees the container's own address."""
        target, host_address = self._outer(address)
        family = "-6" if ":" in address else "-4"
        # The network of the cluster knows the way back.
        self.outside.sandbox.run(["ip", family, "route", "add", address, "via", host_address])
        with self.outside.sandbox.serve(7):
            assert self.web.dial(target, 7).address == address
        self.outside.sandbox.run(["ip", family, "route", "del", address])

    def lan(self, address: str) -> None:
        """The container and a machine of its LAN reach each other without the host's address."""
        peer = self.listed.row["lan"]["address"].partition("/")[0]
        assert self.outside.sandbox.reaches(address, 80, timeout_s=WAIT_S)
        with self.outside.sandbox.serve(7):
            # Source based routing asks for the source.
            assert self.web.dial(peer, 7, source=address).address == address

    def closed(self, address: str) -> None:
        """Neither side of the host's uplink reaches the other."""
        target, host_address = self._outer(address)
        with self.outside.sandbox.serve(7):
            assert not self.web.reaches(target, 7)
        assert not self.outside.sandbox.reaches(host_address, PORT)

    def limited(self, _address: str) -> None:
        """Both directions are limited: by the link on the host, and by the one that it redirects to."""
        shaped = [
            line for line in self.host.run(["tc", "qdisc"]).splitlines() if line.startswith("qdisc tbf")
        ]
        assert len(shaped) == 2
        assert all("rate 8Mbit" in line for line in shaped)


QUESTIONS: dict[str, Callable[[Asker, str], None]] = {
    "host": Asker.host_to_it,
    "neighbour": Asker.neighbour,
    "itself": Asker.itself,
    "published": Asker.published,
    "shared": Asker.shared,
    "hairpin": Asker.hairpin,
    "out": Asker.out,
    "routed": Asker.routed,
    "lan": Asker.lan,
    "closed": Asker.closed,
    "limited": Asker.limited,
}


def _join_by_hand(listed: RealList, web: Sandbox, other: Sandbox) -> list[str]:
    """Add addresses to containers on a network without IPAM, as a virtual machine in them does."""
    for sandbox, address in ((web, "198.51.100.1"), (other, "198.51.100.2")):
        lines = f"addr add {address}/24 dev {listed.ifname}\nlink set {listed.ifname} up\n"
        sandbox.run(["ip", "-batch", "-"], lines)
    return ["198.51.100.1"]


@pytest.mark.parametrize("row", _rows(working=True))
def test_a_life_on_the_list(host: Host, listed: RealList) -> None:
    _live(host, listed)


@pytest.mark.modes("cold")
@pytest.mark.parametrize("row", [each for each in _rows(working=True) if each.id == COLD])
def test_a_cold_life_on_the_list(host: Host, listed: RealList) -> None:
    _live(host, listed)


def _live(host: Host, listed: RealList) -> None:
    web = host.sandbox("web")
    # What containers share, the bridge and the base rules, stays after the first.
    listed.add(web, asks=True)
    listed.delete(web)
    other = None if listed.row.get("one") else host.sandbox("other")
    if other:
        # What the kernel adds to lo when it is up for the first time stays.
        other.run(["ip", "-batch", "-"], "link set lo up\nlink set lo down\n")
    before = host.snapshot()
    if other:
        listed.add(other)
    stale = listed.stale()
    addresses = listed.add(web, asks=True)
    listed.check(*filter(None, [web, other]))
    assert set(listed.row.get("asks", {}).get("ips", [])) <= set(addresses)
    _ask(listed, web, other, addresses)
    # DEL leaves nothing of the container that GC knows, and GC nothing at all.
    listed.delete(web)
    assert listed.stale() == stale
    if not other:
        listed.add(web)
    listed.gc()
    assert [line for line in before.differences(host.snapshot()) if not _is_shared(line)] == []


def _is_shared(difference: str) -> bool:
    """Return whether a difference belongs to no container.

    GC also removes rules of a gateway whose address is gone. A helper writes its files at a time of its own.
    """
    is_gateway = difference.startswith("- rules") and "CNI-GW-" in difference
    return is_gateway or "/run/pycni/helpers/" in difference


def _ask(listed: RealList, web: Sandbox, other: Sandbox | None, addresses: list[str]) -> None:
    questions = listed.row["traffic"]
    if questions == ["layer2"]:
        assert addresses == []
        assert other
        addresses, questions = _join_by_hand(listed, web, other), ["neighbour"]
    assert addresses
    asker = Asker(listed, web, other, addresses)
    with web.serve(80):
        for address in addresses:
            for question in questions:
                QUESTIONS[question](asker, address)


@pytest.mark.parametrize("row", _rows(working=False))
def test_a_list_that_no_suite_can_use(host: Host, listed: RealList) -> None:
    before = host.snapshot()
    with pytest.raises(CniError) as raised:
        listed.add(host.sandbox("web"))
    assert listed.row["error"] in str(raised.value)
    host.run(["ip", "netns", "del", "web"])
    assert host.snapshot() == before


def test_each_file_has_a_row() -> None:
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(row["what"] for row in TABLE)
