"""A guest cannot change the machine, leaves no process, and its end is noticed.

Shell scripts take the place of the second kernel: the host's side is the same, and they can do more to the
machine than a guest.
"""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from plugin_table import ROOT
from tests.kernel.guest import Guest, GuestError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root starts guests")

READONLY = ["setpriv", "--pdeathsig", "KILL", "--", "sh", str(ROOT / "tests/kernel/readonly.sh")]
# What user-mode Linux does with its parameters "ssl0=null,fd:8" and "ssl1=null,fd:9".
KERNEL = """#!/bin/bash
for each; do
    case $each in ssl0=*) out=${each##*:} ;; ssl1=*) report=${each##*:} ;; job=*) job=${each#*=} ;; esac
done
. "$job" >&"$out" 2>&1
echo "$status" >&"$report"
"""


def start(folder: Path, job: str) -> tuple[Guest, list[str]]:
    lines: list[str] = []
    kernel, script = folder / "kernel", folder / "job"
    kernel.write_text(KERNEL)
    kernel.chmod(0o755)
    script.write_text(job)
    return Guest(kernel, script, folder, lines.append), lines


def test_output_and_status_arrive(tmp_path: Path) -> None:
    guest, lines = start(tmp_path, "echo one; echo '{\"test\": 1}' >&$report; echo two; status=3")
    assert guest.wait(60) == 3
    assert lines == ["one", "two"]
    assert guest.reports == [{"test": 1}]


@pytest.mark.parametrize(
    "attempt",
    [
        "touch FOLDER/new",
        "echo x > FOLDER/job",
        "mount -o remount,rw,bind /",
        "mount -t tmpfs tmpfs FOLDER",
        "mount --bind FOLDER /mnt",
        "unshare --mount true",
        "mknod /dev/shm/disk b 1 0",
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
        "kill -9 PARENT",
    ],
)
def test_the_machine_cannot_be_changed(tmp_path: Path, attempt: str) -> None:
    command = attempt.replace("FOLDER", str(tmp_path)).replace("PARENT", str(os.getpid()))
    guest, lines = start(tmp_path, f"touch /dev/shm/mine || exit 1; {command}; status=$?")
    assert guest.wait(60) != 0
    assert lines
    assert sorted(each.name for each in tmp_path.iterdir()) == ["job", "kernel"]
    assert os.access(tmp_path, os.W_OK)


def test_the_first_process_of_a_container_changes_no_mount(tmp_path: Path) -> None:
    """Number 1 alone does not show that namespaces are the script's own."""
    container = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--propagation", "private"]
    done = subprocess.run([*container, *READONLY, "true"], capture_output=True, text=True, check=False)
    assert done.returncode == 125
    assert done.stderr == "readonly.sh is not in a mount namespace of its own\n"


def test_an_early_end_shows_the_console(tmp_path: Path) -> None:
    guest, _ = start(tmp_path, "echo oops >&2; exec >&- 2>&-; kill -9 $$")
    with pytest.raises(GuestError, match="the guest ended early, with status 137; its console"):
        guest.wait(60)


def test_a_guest_that_hangs_is_killed_with_its_processes(tmp_path: Path) -> None:
    """The end of its output says that no process has it any more."""
    guest, _ = start(tmp_path, "sleep 1000 & sleep 1000")
    with pytest.raises(GuestError, match="the guest did not end within 1 s"):
        guest.wait(1)


def test_no_process_remains_when_the_caller_is_killed() -> None:
    caller = ["python3", "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])"]
    command = [*READONLY, "sh", "-c", "echo ready; sleep 1000 & sleep 1000"]
    with subprocess.Popen([*caller, *command], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGKILL)
        assert process.stdout.read() == ""
