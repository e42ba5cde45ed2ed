"""How many examples tests of properties try: few and always the same in `make test`.

Hypothesis takes milliseconds of CPU to make a document that the tested code reads in microseconds.
`make fuzz` tries CASES of them, which SEED selects.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hypothesis import seed, settings

if TYPE_CHECKING:
    from collections.abc import Callable

CASES = int(os.environ.get("PYCNI_FUZZ", "0"))
SEED = int(os.environ.get("PYCNI_FUZZ_SEED", "0"))
_FEW = 50


def examples(test: Callable[..., None]) -> Callable[..., None]:
    """Decorate a property that `given` has decorated."""
    limited = settings(max_examples=CASES or _FEW, derandomize=not CASES, database=None)
    return limited(seed(SEED)(test) if CASES else test)
