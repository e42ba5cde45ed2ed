"""An uninstallation removes the files of an installation that was killed while it copied the bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from plugin_table import ROOT
from tests.netns.bundled_host import PREFIX, empty_opt

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host

__all__ = ["empty_opt"]


@pytest.mark.parametrize("by_make", [True, False])
def test_a_half_copied_bundle_goes(empty_opt: Host, bundle: Path, *, by_make: bool) -> None:
    stage = PREFIX / ".pycni-new-killed"
    empty_opt.run(["mkdir", "-p", str(stage / "lib")])
    empty_opt.run(["cp", str(bundle / "pycni"), str(stage / "lib/half")])
    empty_opt.run(["touch", str(PREFIX / "lock")])
    program = [str(bundle / "pycni"), "--uninstall"]
    make = ["make", "--silent", "--directory", str(ROOT), "uninstall"]
    told = empty_opt.run(make if by_make else program)
    assert f"{PREFIX}: removed" in told
    assert empty_opt.run(["find", "/opt", "-mindepth", "3"]) == ""
