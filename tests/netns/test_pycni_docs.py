"""The session that docs/pycni-command.md shows goes as it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.command import Command

if TYPE_CHECKING:
    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/pycni-command.md").read_text()
BINDIR = "/opt/cni/bin"
# A line of its own that no command prints.
MARK = "=== end of a command ==="


def session() -> list[tuple[str, str]]:
    """Return the page's commands and what each prints."""
    blocks = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    steps = [step for block in blocks for step in re.split(r"^\$ ", block, flags=re.MULTILINE) if step]
    return [(command, printed) for command, _, printed in (step.partition("\n") for step in steps)]


def comparable(text: str, bindir: str) -> str:
    """Return a text with what differs from run to run replaced."""
    text = text.replace(bindir, BINDIR)
    text = re.sub(r"\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b", "<mac>", text)
    text = re.sub(r"\bveth[0-9a-f]{8}\b", "<veth>", text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def test_the_page_is_true(host: Host, tmp_path: Path) -> None:
    command = Command(tmp_path, host.bindir)
    host.run(["mkdir", "-p", "/etc/cni/net.d"])
    text = (ROOT / "conf/10-bridge.conflist").read_text().replace('"1.0.0"]', '"1.0.0", "1.1.0"]')
    host.call(Path("/etc/cni/net.d/10-bridge.conflist").write_text, text)
    steps = session()
    script = "\n".join(f"{command}\necho; echo '{MARK}'" for command, _ in steps)
    path = f"{command.path.parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    done = host.place.run(["sh", "-c", f"exec 2>&1\n{script}"], env={"PATH": path}, timeout_s=400)
    printed = done.stdout.split(MARK)
    assert len(steps) > 15
    for (asked, expected), seen in zip(steps, printed, strict=False):
        assert (asked, comparable(seen, str(host.bindir))) == (asked, comparable(expected, str(host.bindir)))


def test_the_page_names_every_verb_and_option(host: Host, tmp_path: Path) -> None:
    command = Command(tmp_path, host.bindir)
    shown = command.run(host.place, "--help").stdout
    verbs = re.findall(r"^ {2}([a-z]+) {2,}[A-Z]", shown, re.MULTILINE)
    assert len(verbs) == 21
    for verb in verbs:
        assert f"`pycni {verb}" in PAGE
        for option in re.findall(r"--[a-z-]+", command.run(host.place, verb, "--help").stdout):
            assert f"`{option}" in PAGE
