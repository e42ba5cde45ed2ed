"""A run fails if its tests leave something on the machine. The machine is a private host here."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import machine

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host

LEFT = {
    "nothing": ("true", ""),
    "a file": ("touch /run/left.pid", "/run/left.pid"),
    "a namespace": ("ip netns add left", "/run/netns/left"),
    "a control group": ("mkdir -p /sys/fs/cgroup/cpu/left", "/sys/fs/cgroup/cpu/left"),
    "a link": ("ip link add left0 type bridge", "link left0"),
    "what is gone again": ("touch /run/left.pid; rm /run/left.pid", ""),
}


@pytest.mark.parametrize(("command", "named"), LEFT.values(), ids=LEFT)
def test_a_run_names_what_its_tests_have_left(host: Host, tmp_path: Path, command: str, named: str) -> None:
    host.run(["mkdir", "-p", "/run/netns"])
    # Other tests make control groups at the same time.
    host.run(["mount", "-t", "tmpfs", "none", "/sys/fs/cgroup"])
    host.run(["mkdir", "/sys/fs/cgroup/cpu"])
    (tmp_path / "test_it.py").write_text(
        f"import os\ndef test_it():\n    assert os.system({command!r}) == 0\n"
    )
    options = ["-q", "-p", machine.__name__, "-p", "no:cacheprovider", "--noconftest", "-c", "/dev/null"]
    done = host.place.run([sys.executable, "-m", "pytest", *options, str(tmp_path)], check=False)
    assert ("1 passed" in done.stdout, done.returncode) == (True, int(bool(named))), done.stdout + done.stderr
    report = done.stdout.partition("left on the machine")[2]
    assert report.splitlines()[1:2] == ([named] if named else [])
