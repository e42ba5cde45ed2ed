"""Values of make's variables that cannot be meant are refused before anything changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from plugin_table import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host


@pytest.mark.parametrize("value", ["maybe", "off", "No", "0", "no yes no-such"])
def test_a_misspelt_selftest_is_refused(host: Host, value: str) -> None:
    before = host.snapshot(exact=True)
    make = ["make", "--silent", "--directory", str(ROOT), "uninstall", "PREFIX=/nowhere", f"SELFTEST={value}"]
    done = host.place.run(make, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert f'SELFTEST is "{value}": it is yes or no' in done.stderr
    assert before.differences(host.snapshot(exact=True)) == []


@pytest.mark.parametrize("name", ["../conf/10-bridge", "/etc/passwd", "10-bridge/../10-bridge"])
def test_a_network_is_a_name_and_no_path(host: Host, bundle: Path, name: str) -> None:
    host.run(["mount", "-t", "tmpfs", "tmpfs", "/opt"])
    argv = [str(bundle / "pycni"), "--install", "--bindir", "/opt/cni/bin", "--units", "no", "--conf", name]
    done = host.place.run(argv, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"there is no conf/{name}.conflist; CONF is one of: 10-bridge, ")
    assert host.run(["ls", "/opt"]) == ""
