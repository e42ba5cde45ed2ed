"""Each feature that a test may ask for is there on one of the two kernels, and its probe finds it."""

from __future__ import annotations

import pytest

from tests.support.kernel import FEATURES, has


@pytest.mark.parametrize(
    "feature", [pytest.param(each, marks=pytest.mark.needs_kernel(each)) for each in FEATURES]
)
def test_a_probe_finds_its_feature(feature: str) -> None:
    assert has(feature)
