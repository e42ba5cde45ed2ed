"""Debian's Go bandwidth and ours: equal results and disciplines, CHECK and DEL by the other one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import GO, OURS
from cni.testing.network import Network

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Answer, Host, Sandbox

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(
        not (GO / "bandwidth").exists(), reason="containernetworking-plugins is not installed"
    ),
]

RATES = {
    "ingressRate": 8_000_000,
    "ingressBurst": 800_000,
    "egressRate": 16_000_000,
    "egressBurst": 1_600_000,
}
CONFS: dict[str, dict[str, Any]] = {
    "own": RATES,
    "runtime": {"runtimeConfig": {"bandwidth": RATES}},
    "ingress": {"ingressRate": 1_000_000, "ingressBurst": 4294967295},
    "egress": {"egressRate": 8, "egressBurst": 8},
    "none": {},
}


class Place:
    """A container behind the bridge."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.net = Network(host, cniVersion="1.0.0")
        attached = self.net.add("c1")
        self.sandbox: Sandbox = attached.sandbox
        self.end = attached.host_end
        self.result = attached.answer.json

    def call(self, verb: str, conf: dict[str, Any], bindir: Path | None, **options: Any) -> Answer:
        keys = {"cniVersion": "1.0.0", "name": "net1", "type": "bandwidth", "prevResult": self.result}
        given: dict[str, Any] = {"netns": self.sandbox, "bindir": bindir} | options
        return self.host.plugin("bandwidth", verb, keys | conf, **given)

    def disciplines(self) -> list[str]:
        """Return what `tc` shows, without what is random, and without the number of ports of a hash table."""
        lines = []
        for name in [self.end, *self.ifbs()]:
            for words in (["qdisc"], ["filter"], ["filter", "ingress"]):
                kind, *where = words
                shown = self.host.run(["tc", kind, "show", "dev", name, *where])
                lines += [
                    re.sub(r"refcnt \d+|index \d+|ref \d+|bind \d+", "", each) for each in shown.splitlines()
                ]
        return lines

    def ifbs(self) -> list[str]:
        return [each for each in self.host.links() if each.startswith("bwp")]

    def clear(self) -> None:
        for where in ("root", "ingress"):
            self.host.run(["tc", "qdisc", "del", "dev", self.end, where], check=False)


@pytest.fixture
def place(host: Host) -> Place:
    return Place(host)


@pytest.mark.parametrize("conf", CONFS.values(), ids=CONFS)
def test_result_and_disciplines_are_those_of_go(place: Place, conf: dict[str, Any]) -> None:
    found = []
    for bindir in (GO, OURS):
        result = place.call("ADD", conf, bindir).must()
        macs = [each.pop("mac") for each in result["interfaces"][3:]]
        lines = place.disciplines()
        # The Go plugin installs the redirection twice in one filter.
        redirects = [each for each in lines if "mirred" in each]
        assert len(set(redirects)) == len(macs) or bindir == GO
        found.append(({key: value for key, value in result.items() if value}, qdiscs(lines)))
        place.call("DEL", conf, bindir).must()
        assert place.ifbs() == []
        place.clear()
    assert found[0] == found[1]


def qdiscs(lines: list[str]) -> list[str]:
    return [each for each in lines if each.startswith("qdisc")]


@pytest.mark.parametrize("conf", CONFS.values(), ids=CONFS)
@pytest.mark.parametrize("go_adds", [True, False], ids=["go-adds", "we-add"])
def test_one_checks_and_removes_what_the_other_made(
    place: Place, conf: dict[str, Any], *, go_adds: bool
) -> None:
    maker, other = (GO, OURS) if go_adds else (OURS, GO)
    place.result = place.call("ADD", conf, maker).must()
    for bindir in (other, maker) if conf else (OURS,):
        # The Go plugin crashes in CHECK without limits.
        place.call("CHECK", conf, bindir).must()
    for _ in range(2):
        place.call("DEL", conf, other).must()
        assert place.ifbs() == []


def test_repair_limits_again_what_go_has_limited(place: Place) -> None:
    place.result = place.call("ADD", RATES, GO).must()
    place.clear()
    assert place.call("CHECK", RATES, OURS).code == 104
    assert place.call("PYCNI_REPAIR", RATES, OURS).must()["failed"] == []
    for bindir in (OURS, GO):
        place.call("CHECK", RATES, bindir).must()


def test_gc_removes_an_ifb_of_go_that_no_link_is_redirected_to(place: Place) -> None:
    place.call("ADD", RATES, GO).must()
    keys: dict[str, Any] = {"cni.dev/valid-attachments": [], "cniVersion": "1.1.0", "prevResult": None}
    place.call("GC", keys, OURS, container_id="", ifname="").must()
    # It may be of a network that this list is not about.
    assert len(place.ifbs()) == 1
    place.sandbox.delete()
    valid = [{"containerID": "c1", "ifname": "eth0"}]
    place.call("GC", keys | {"cni.dev/valid-attachments": valid}, OURS, container_id="", ifname="").must()
    assert len(place.ifbs()) == 1
    place.call("GC", keys, OURS, container_id="", ifname="").must()
    assert place.ifbs() == []


def test_an_ifb_of_go_and_one_of_ours_for_two_interfaces_of_a_container(place: Place) -> None:
    first = place.call("ADD", RATES, GO).must()
    second = place.net.call("ADD", "c1", ifname="eth1").must()
    second = place.call("ADD", RATES | {"prevResult": second}, OURS, ifname="eth1").must()
    assert len(place.ifbs()) == 2
    place.call("DEL", RATES | {"prevResult": second}, OURS, ifname="eth1").must()
    place.call("CHECK", RATES | {"prevResult": first}, GO).must()
    place.call("DEL", RATES | {"prevResult": first}, OURS).must()
    assert place.ifbs() == []
