"""Run scenes: each side on a host of its own, taking turns round by round in swapped order."""

from __future__ import annotations

import time
from contextlib import ExitStack
from itertools import chain
from typing import TYPE_CHECKING, Protocol

from bench import crowd
from bench.chain import Chain
from bench.extras import prove
from bench.ipam import Ipam, Version
from bench.names import Names
from bench.networks import Listed
from bench.rows import Row, make_rows
from bench.scenes import IPAM, NAMES, VERSION
from bench.sides import COLD, WARM
from bench.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bench.rows import Times
    from bench.scenes import Scene
    from bench.sides import Side

# The kernel removes namespaces in the background, and holds global locks meanwhile.
SETTLE_S, SETTLE_EACH_S = 0.08, 0.01
_PROOF_NUMBER = 30_000


class Case(Protocol):
    """The work of one side in one scene."""

    def round(self) -> dict[str, float]:
        """Run one round. Return the seconds of each verb."""
        ...


def steps_of(scene: Scene) -> int:
    """Return how often `run_scene` reports progress."""
    fillings = [crowd.steps_of(_attachments(scene, side)) for side in scene.sides]
    return 2 * len(scene.sides) + sum(fillings) + sum(map(len, _turns(scene)))


def run_scene(scene: Scene, progress: Callable[[str], None]) -> list[Row]:
    """Measure a scene, and report each step to `progress`. Raises CallError, ProofError, OSError."""
    with ExitStack() as stack:
        cases: list[Case] = []
        for side in scene.sides:
            progress(f"{scene.title}: prepare {side.label}")
            cases.append(_case(scene, stack.enter_context(Stage(side)), progress))
        first = []
        for side, case in zip(scene.sides, cases, strict=True):
            progress(f"{scene.title}: first round of {side.label}")
            first.append(_first(scene, side, case))
        times: list[Times] = [{verb: [] for verb in each} for each in first]
        for index in chain.from_iterable(_turns(scene)):
            _settle(scene)
            progress(f"{scene.title}: {scene.sides[index].label}")
            for verb, seconds in cases[index].round().items():
                times[index][verb].append(seconds)
    if not scene.is_alone:
        # The hosts have ended with all namespaces on them.
        most = max(_attachments(scene, side) for side in scene.sides)
        time.sleep(SETTLE_S + SETTLE_EACH_S * most / scene.filling.per_namespace)
    return make_rows(scene, first, times)


def _turns(scene: Scene) -> list[list[int]]:
    """Return the sides, as indices, in each round's order; cold ones are slow and leave out every other."""
    rounds = []
    for number in range(scene.rounds):
        order = [index for index, side in enumerate(scene.sides) if side.suite != COLD or number % 2 == 0]
        rounds.append(order if number % 4 < 2 else order[::-1])
    return rounds


def _first(scene: Scene, side: Side, case: Case) -> dict[str, float]:
    """Run the rounds that do not count. Return the seconds of the first one."""
    _settle(scene)
    first = case.round()
    # Concurrent calls reach all workers in the first round.
    more = scene.warm_up if side.suite == WARM and scene.at_once == 1 else 0
    for _ in range(more):
        _settle(scene)
        case.round()
    return first


def _case(scene: Scene, stage: Stage, progress: Callable[[str], None]) -> Case:
    if scene.work == IPAM:
        return Ipam(stage, scene.there)
    if scene.work == VERSION:
        return Version(stage)
    if scene.work == NAMES:
        return Names(stage, scene.there)
    if scene.network:
        return Listed(stage, scene.network)
    first = there = _attachments(scene, stage.side)
    if scene.rules:
        crowd.write_foreign(stage, scene.rules)
    if there or scene.at_once > 1:
        # The Go plugins fail where several make the chains that all containers share at the same time.
        Chain(stage, first=first).round()
        first += 1

    def tell(action: str) -> None:
        progress(f"{scene.title}: {stage.side.label}, {action}")

    crowd.attach(stage, there, scene.filling, tell)
    return Chain(stage, scene.at_once, first)


def _attachments(scene: Scene, side: Side) -> int:
    """Return how many attachments are made before the measurement."""
    return 0 if scene.is_alone else scene.there + side.beside


def _settle(scene: Scene) -> None:
    if not scene.is_alone:
        time.sleep(SETTLE_S + SETTLE_EACH_S * scene.at_once)


def prove_all(sides: Iterable[Side], progress: Callable[[str], None]) -> None:
    """Prove that every side does its work. Raises ProofError, CallError."""
    for side in sides:
        progress(f"a connection, and nothing remains: {side.label}")
        with Stage(side) as stage:
            Chain(stage).round()
            prove(stage, _PROOF_NUMBER)
