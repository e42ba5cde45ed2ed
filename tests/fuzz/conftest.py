"""The fixture that runs properties, on a host if needed, and counts the cases."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import place
from tests.fuzz.cases import PARTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.testing import Host
    from tests.fuzz.cases import Tried


class Fuzz:
    """Runs properties, on a host if they need one, and records the number of cases."""

    def __init__(self, request: pytest.FixtureRequest, note: Callable[[str, object], None]) -> None:
        self._request = request
        self.part: int = request.param
        self._note = note

    def run(self, check: Callable[..., Tried], *args: Any) -> None:
        """Try a property of `cases` in this process."""
        self.count(check(*args, part=self.part))

    def run_inside(self, host: Host, check: Callable[..., Tried], *args: Any) -> None:
        """Try it in a child that is on a host; nothing may be left there in the end."""
        _prime()
        host.call(place.prepare)
        self.count(host.call(_inside, self.part, check, *args))

    def count(self, tried: Tried) -> None:
        """Record the number of cases."""
        area = self._request.path.stem.removeprefix("test_fuzz_").replace("_", " ")
        self._note("figures", ["fuzz", area, tried._asdict()])


@cache
def _prime() -> None:
    """Run Hypothesis once in this process. Each child would do again what a first run does, 0.1 s of CPU.

    It collects garbage, and reads the constants in all modules.
    """

    @settings(max_examples=50, derandomize=True, database=None, deadline=None)
    @given(st.integers() | st.text())
    def draw(_: object) -> None: ...

    draw()


def _inside(part: int, check: Callable[..., Tried], *args: Any) -> Tried:
    place.enter()
    return check(*args, part=part)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Try each property in several parts where that takes long."""
    if "fuzz" in metafunc.fixturenames:
        metafunc.parametrize("fuzz", range(PARTS), indirect=True, ids=str)


@pytest.fixture
def fuzz(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Fuzz:
    return Fuzz(request, record_property)
