"""The scenes of a run, each with its sides and the number of rounds in which they take turns."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from bench import names, networks
from bench.containers import Filling
from bench.sides import AARDVARK, BACKENDS, COLD, GO, NFTABLES, SINGLE, WARM, Side

if TYPE_CHECKING:
    from bench.networks import Network
    from bench.sides import Suites

CHAIN, IPAM, VERSION, LISTED, FLAT, NAMES = "chain", "ipam", "version", "listed", "flat", "names"

_EACH_ITS_OWN = Filling()


class Scene(NamedTuple):
    """Sides that take turns, and the objects that exist before: attachments or leases, and foreign rules.

    `warm_up` rounds of reused workers come first and do not count: each worker has a first time of its own.
    """

    work: str
    sides: tuple[Side, ...]
    rounds: int
    warm_up: int
    at_once: int = 1
    there: int = 0
    rules: int = 0
    filling: Filling = _EACH_ITS_OWN
    network: Network | None = None

    @property
    def is_alone(self) -> bool:
        """Return whether its work needs no container."""
        return self.work in {IPAM, VERSION, NAMES}

    @property
    def title(self) -> str:
        """Return the subject of the scene in a few words."""
        if self.work == IPAM:
            return f"host-local alone, {self.there:,} leases there"
        if self.work == VERSION:
            return "VERSION"
        if self.work == FLAT:
            return "chain, few and many on one bridge in turns"
        if self.work == NAMES:
            return title_of_names(self.there)
        if self.network:
            return title_of(self.network)
        many = f", {self.at_once} at once" if self.at_once > 1 else ""
        there = f", {self.there:,} attachments there" if self.there else ""
        return f"chain{many}{there}" + (f", {self.rules:,} foreign rules there" if self.rules else "")


def title_of(network: Network) -> str:
    """Return the title of a network's scene."""
    return f"{network.title}: {network.plugins}"


def title_of_names(there: int) -> str:
    """Return the title of the scene with so many names."""
    return f"{names.PLUGIN} alone, {there:,} names there"


class Size(NamedTuple):
    """How large a run is: rounds, fewer of those that take long, and how far each series goes.

    `alone` are numbers of attachments that ours are measured with and Go, which would take too long to make
    them, is not; `filling` is how they are made. `beside` is how many attachments one of two sides has beside
    it, and the other has none.
    """

    name: str
    warm_up: int
    rounds: int
    burst_rounds: int
    slow_rounds: int
    at_once: tuple[int, ...]
    there: tuple[int, ...]
    leases: tuple[int, ...]
    rules: tuple[int, ...] = ()
    alone: tuple[int, ...] = ()
    filling: Filling = _EACH_ITS_OWN
    beside: int = 1_000
    names: tuple[int, ...] = (0, 1_000)


FULL = Size(
    "full",
    warm_up=4,
    rounds=30,
    burst_rounds=10,
    slow_rounds=12,
    at_once=(8, 32),
    there=(100, 1_000),
    leases=(0, 1_000, 10_000, 50_000),
    rules=(10_000,),
    alone=(10_000,),
    filling=Filling(per_namespace=10, rules_apart=True),
)
QUICK = Size("quick", 4, 6, 2, 4, at_once=(32,), there=(100,), leases=(0, 10_000))
TINY = Size(
    "tiny",
    warm_up=0,
    rounds=1,
    burst_rounds=1,
    slow_rounds=1,
    at_once=(3,),
    there=(2,),
    leases=(20,),
    rules=(4,),
    alone=(5,),
    filling=Filling(per_namespace=2, per_network=2, rules_apart=True),
    beside=3,
    names=(2,),
)
SIZES = {size.name: size for size in (FULL, QUICK, TINY)}


def plan_scenes(suites: Suites, size: Size) -> list[Scene]:
    """Return the scenes of a run; last those with many namespaces, which the kernel takes long to remove."""
    go = suites.base()
    warm = [suites.our(WARM, backend) for backend in BACKENDS]
    single = [suites.our(SINGLE, backend) for backend in BACKENDS]
    quick = suites.our(WARM, NFTABLES)
    no_backend = [*suites.base(with_backends=False), *(suites.our(start) for start in (WARM, SINGLE, COLD))]
    go_names = names.find_go(suites.go)
    aardvark = names.find_aardvark()
    others = [Side(AARDVARK, aardvark)] if aardvark else []
    named = [Side(GO, go_names), suites.our(WARM), *others] if go_names else []

    def scene(work: str, sides: list[Side], rounds: int, **more: Any) -> Scene:
        return Scene(work, tuple(sides), rounds, size.warm_up, **more)

    return [
        scene(VERSION, no_backend, size.rounds),
        scene(CHAIN, [*go, *suites.all_ours()], size.rounds),
        *(scene(IPAM, no_backend, size.slow_rounds, there=many) for many in size.leases),
        *(
            scene(
                LISTED,
                [go[0], *(warm if each.has_backend else [suites.our(WARM)])],
                size.rounds,
                network=each,
            )
            for each in networks.read()
        ),
        *(scene(NAMES, named, size.slow_rounds, there=many) for many in size.names if named),
        *(scene(CHAIN, [*go, *warm, *single], size.burst_rounds, at_once=many) for many in size.at_once),
        *(scene(CHAIN, [*go, *warm], size.slow_rounds, rules=many) for many in size.rules),
        *(scene(CHAIN, [*go, *warm], size.slow_rounds, there=many) for many in size.there),
        scene(FLAT, [replace(quick, beside=many) for many in (0, size.beside)], size.rounds),
        *(scene(CHAIN, warm, size.slow_rounds, there=many, filling=size.filling) for many in size.alone),
    ]
