"""Properties tried with many inputs: how many, in which order, and what every answer must be like.

`make test` tries the same few cases each time. PYCNI_FUZZ sets the number of cases of each area (a file of
tests here), PYCNI_FUZZ_SEED selects them. `make fuzz` sets both and splits each property into parts.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from hypothesis import HealthCheck, given, seed, settings

from cni.convert import parse_result
from cni.errors import Code
from tests.support.examples import CASES, SEED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypothesis.strategies import SearchStrategy

    from cni.testing import Answer

PARTS = 4 if CASES else 1
_QUICK_CASES = 40
_LIMIT_S = 60
_CODES = {int(code) for code in Code}

Property = Callable[..., bool | None]


class Tried(NamedTuple):
    """The number of cases, and of those that the plugin accepted."""

    cases: int
    accepted: int


class HangError(BaseException):
    """A case takes too long. No plugin can catch this error."""


def cases(share: float, **strategies: SearchStrategy[Any]) -> Callable[[Property], Callable[..., Tried]]:
    """Return a decorator: the function tries a property with `share` of an area's cases and counts them.

    It passes its own arguments on, before those that `strategies` make. The property returns whether the
    plugin accepted the input.
    """

    def decorate(check: Property) -> Callable[..., Tried]:
        def run(*context: object, part: int = 0) -> Tried:
            tried = accepted = 0

            def one(**drawn: object) -> None:
                nonlocal tried, accepted
                tried += 1
                with _limited():
                    accepted += bool(check(*context, **drawn))

            one.__name__ = one.__qualname__ = check.__name__
            _with_profile(given(**strategies)(one), share, part)()
            return Tried(tried, accepted)

        return run

    return decorate


def _with_profile(test: Callable[..., None], share: float, part: int) -> Callable[..., None]:
    """Apply the number of cases that the environment sets. No database: its folder would be read-only."""
    profile = settings(
        max_examples=max(1, round((CASES or _QUICK_CASES) * share / PARTS)),
        derandomize=not CASES,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    return profile(seed(SEED * PARTS + part)(test) if CASES else test)


@contextmanager
def _limited() -> Iterator[None]:
    def stop(_number: int, _frame: object) -> None:
        raise HangError(f"it took longer than {_LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(_LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def judge(answer: Answer, verb: str) -> Answer:
    """Fail the test unless a runtime can use this answer."""
    assert "Traceback" not in answer.stderr, answer
    if answer.ok:
        if verb == "ADD":
            parse_result(answer.json, "", "answer")
        elif verb != "VERSION":
            assert answer.stdout == "", answer
        return answer
    assert answer.status == 1, answer
    told = answer.json
    assert type(told["code"]) is int, answer
    # 999 is for faults of the plugin: no input may lead there.
    assert told["code"] in _CODES - {Code.INTERNAL}, answer
    assert told["msg"], answer
    assert set(told) <= {"cniVersion", "code", "msg", "details"}, answer
    return answer
