"""What is measured: the scenes of a run, each with its sides and how many rounds they take turns for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bench.sides import BACKENDS, COLD, SINGLE, WARM

if TYPE_CHECKING:
    from bench.sides import Side, Suites

CHAIN, IPAM, VERSION = "chain", "ipam", "version"


class Scene(NamedTuple):
    """Sides that take turns. `there` is attachments or, for IPAM, leases that are there before.

    `warm_up` rounds of reused workers come first and do not count: each worker has a first time of its own.
    """

    work: str
    sides: tuple[Side, ...]
    rounds: int
    warm_up: int
    at_once: int = 1
    there: int = 0

    @property
    def title(self) -> str:
        """What it is about, in a few words."""
        if self.work == IPAM:
            return f"host-local alone, {self.there:,} leases there"
        if self.work == VERSION:
            return "VERSION"
        many = f", {self.at_once} at once" if self.at_once > 1 else ""
        return f"chain{many}" + (f", {self.there:,} attachments there" if self.there else "")


class Size(NamedTuple):
    """How large a run is: rounds, fewer of those that take long, and how far each series goes."""

    name: str
    warm_up: int
    rounds: int
    burst_rounds: int
    slow_rounds: int
    at_once: tuple[int, ...]
    there: tuple[int, ...]
    leases: tuple[int, ...]


FULL = Size("full", 4, 30, 10, 12, (8, 32), (100, 1000), (0, 1_000, 10_000, 50_000))
QUICK = Size("quick", 4, 6, 2, 4, (32,), (100,), (0, 10_000))
TINY = Size("tiny", 0, 2, 2, 2, (3,), (2,), (20,))
SIZES = {size.name: size for size in (FULL, QUICK, TINY)}


def plan_scenes(suites: Suites, size: Size) -> list[Scene]:
    """Give the scenes of a run; last those with many namespaces, which the kernel takes long to remove."""
    go = suites.base()
    warm = [suites.our(WARM, backend) for backend in BACKENDS]
    single = [suites.our(SINGLE, backend) for backend in BACKENDS]
    alone = [*suites.base(with_backends=False), *(suites.our(start) for start in (WARM, SINGLE, COLD))]

    def scene(work: str, sides: list[Side], rounds: int, at_once: int = 1, there: int = 0) -> Scene:
        return Scene(work, tuple(sides), rounds, size.warm_up, at_once, there)

    return [
        scene(VERSION, alone, size.rounds),
        scene(CHAIN, [*go, *suites.all_ours()], size.rounds),
        *(scene(IPAM, alone, size.slow_rounds, there=many) for many in size.leases),
        *(scene(CHAIN, [*go, *warm, *single], size.burst_rounds, at_once=many) for many in size.at_once),
        *(scene(CHAIN, [*go, *warm], size.slow_rounds, there=many) for many in size.there),
    ]
