"""A host to try things on, and how many cases there were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.fuzz import place

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.testing import Host
    from tests.fuzz.cases import Tried


class Fuzz:
    """Runs properties, on a host where they need one, and notes how many cases there were."""

    def __init__(self, request: pytest.FixtureRequest, note: Callable[[str, object], None]) -> None:
        self._request = request
        self._note = note

    def run(self, check: Callable[..., Tried], *args: Any) -> None:
        """Try a property of `cases` in this process."""
        self.count(check(*args))

    def run_inside(self, host: Host, check: Callable[..., Tried], *args: Any) -> None:
        """Try it in a child that is on a host; nothing may be left there in the end."""
        host.call(place.prepare)
        self.count(host.call(_inside, check, *args))

    def count(self, tried: Tried) -> None:
        """Note how many cases there were."""
        area = self._request.path.stem.removeprefix("test_fuzz_").replace("_", " ")
        self._note("figures", ["fuzz", area, tried._asdict()])


def _inside(check: Callable[..., Tried], *args: Any) -> Tried:
    place.enter()
    return check(*args)


@pytest.fixture
def fuzz(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Fuzz:
    return Fuzz(request, record_property)
