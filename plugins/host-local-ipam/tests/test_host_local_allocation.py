"""host-local against a model of a dozen lines, on the real store."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cni.testing.direct import call
from cni_host_local_ipam import PLUGIN

BASES = ("10.0.0.0", "10.0.0.8", "10.0.0.16", "10.0.0.24", "fd00::", "fd00::8", "fd00::10", "fd00::18")


@dataclass(frozen=True)
class ModelRange:
    """A range as its addresses in order; the gateway is one of them or not."""

    subnet: str
    addresses: tuple[str, ...]
    gateway: str


ModelSet = tuple[ModelRange, ...]


def make_range(base: str, start: int, length: int, gateway: int) -> ModelRange:
    first = ip_address(base)
    prefix = 29 if first.version == 4 else 125
    addresses = tuple(str(first + n) for n in range(start, min(start + length, 8)))
    return ModelRange(f"{base}/{prefix}", addresses, str(first + gateway))


@st.composite
def range_sets(draw: st.DrawFn) -> list[ModelSet]:
    """One to three sets of disjoint ranges, the families in any order."""
    bases = draw(st.permutations(BASES))
    small = st.integers(0, 7)
    ranges = [make_range(base, draw(small), draw(st.integers(1, 4)), draw(small)) for base in bases[:5]]
    by_family = [[each for each in ranges if (":" in each.subnet) is six] for six in (False, True)]
    sets: list[ModelSet] = []
    for family in by_family:
        while family and len(sets) < 3:
            size = draw(st.integers(1, 2))
            sets.append(tuple(family[:size]))
            del family[:size]
    return sets


@dataclass
class Model:
    """Which container holds which address, and where each ring stands."""

    sets: list[ModelSet]
    taken: dict[str, str] = field(default_factory=dict)
    last: dict[int, str] = field(default_factory=dict)

    def add(self, container: str, requests: list[str]) -> list[str] | None:
        """Return the addresses of an ADD, None when it must fail; only a success changes anything."""
        left = list(dict.fromkeys(requests))
        given: list[str] = []
        for number, range_set in enumerate(self.sets):
            ring = [address for each in range_set for address in each.addresses]
            wanted = next((each for each in left if each in ring), None)
            if wanted is not None:
                left.remove(wanted)
                fits = self.taken.get(wanted, container) == container and self._may_give(range_set, wanted)
                address = wanted if fits else None
            elif any(self.taken.get(each) == container for each in ring):
                address = None
            else:
                address = self._next(number, range_set, ring)
            if address is None:
                return None
            given.append(address)
        if left:
            return None
        for number, address in enumerate(given):
            if address not in self.taken:
                self.taken[address] = container
                self.last[number] = address
        return given

    def _next(self, number: int, range_set: ModelSet, ring: list[str]) -> str | None:
        last = self.last.get(number)
        behind = ring.index(last) + 1 if last in ring else 0
        turned = ring[behind:] + ring[:behind]
        return next(
            (each for each in turned if each not in self.taken and self._may_give(range_set, each)), None
        )

    @staticmethod
    def _may_give(range_set: ModelSet, address: str) -> bool:
        return all(address != each.gateway for each in range_set if address in each.addresses)

    def delete(self, container: str) -> None:
        self.taken = {address: holder for address, holder in self.taken.items() if holder != container}


CONTAINERS = st.sampled_from([f"c{number}" for number in range(12)])
EVERY_ADDRESS = [str(ip_address(base) + n) for base in BASES for n in range(8)]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ADD", "ADD", "ADD", "DEL"]),
        CONTAINERS,
        st.one_of(st.just([]), st.just([]), st.lists(st.sampled_from(EVERY_ADDRESS), max_size=3)),
    ),
    max_size=30,
)


def show(sets: list[ModelSet], top: str) -> dict[str, Any]:
    ranges = [
        [
            {
                "subnet": each.subnet,
                "rangeStart": each.addresses[0],
                "rangeEnd": each.addresses[-1],
                "gateway": each.gateway,
            }
            for each in range_set
        ]
        for range_set in sets
    ]
    ipam = {"type": "host-local", "dataDir": top, "ranges": ranges}
    return {"cniVersion": "1.0.0", "name": "net", "ipam": ipam}


def read_leases(folder: Path) -> dict[str, str]:
    """Return the leases on disk in the form of the model."""
    if not folder.exists():
        return {}
    leases = [each for each in folder.iterdir() if each.name in EVERY_ADDRESS]
    return {each.name: each.read_text(encoding="utf-8").split()[0] for each in leases}


@settings(max_examples=100, deadline=None)
@given(sets=range_sets(), steps=STEPS)
def test_addresses_come_and_go_as_in_the_model(
    sets: list[ModelSet], steps: list[tuple[str, str, list[str]]]
) -> None:
    """Each address has one holder, the ring's order is kept, and ADD fails exactly when nothing fits."""
    model = Model(sets)
    with tempfile.TemporaryDirectory() as top:
        conf = show(sets, top)
        for verb, container, requests in steps:
            if verb == "DEL":
                call(PLUGIN, "DEL", conf, container_id=container).must()
                model.delete(container)
            else:
                asked = conf | {"runtimeConfig": {"ips": requests}}
                answer = call(PLUGIN, "ADD", asked, container_id=container)
                expected = model.add(container, requests)
                assert (answer.addresses if answer.ok else None) == expected, answer
            assert read_leases(Path(top) / "net") == model.taken
