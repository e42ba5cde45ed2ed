"""The compared sides: plugins, a bin directory, the requested backend, and how our plugins are started."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING

from cni.kernel import child
from cni.testing.place import BARE_ENV

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# The plugins that all suites have. Others than these are not measured.
INTERFACE, IPAM, PORTS = "bridge", "host-local", "portmap"
NFTABLES, IPTABLES = "nftables", "iptables"
BACKENDS = (NFTABLES, IPTABLES)
GO, OTHER, AARDVARK = "go", "other", "aardvark"
WARM, SINGLE, COLD = "warm", "single-use", "cold"
GONE, ACK = "gone", "ack"

# Longer than any pause of a run. A server of a killed run ends after that time.
_IDLE_S = 300
_SETTINGS: Mapping[str, Mapping[str, int]] = {
    WARM: {"idleSeconds": _IDLE_S},
    SINGLE: {"idleSeconds": _IDLE_S, "calls": 1},
    COLD: {},
}


@dataclass(frozen=True)
class Side:
    """A compared side; `suite` is GO, OTHER or how ours is started.

    `backend` is "" for the suite's default. `answer` is when our DEL answers: when the kernel has said that
    the link is gone, or waiting for the acknowledgement. `settings` are those of its warm server; none for
    sides without one. `beside` are attachments that were made before on its host.
    """

    suite: str
    bindir: Path
    backend: str = ""
    answer: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, int] = field(default_factory=dict)
    beside: int = 0

    @property
    def label(self) -> str:
        """Return the name in tables."""
        waits = ", waits for ack" if self.answer == ACK else ""
        beside = f", beside {self.beside:,}" if self.beside else ""
        return f"{self.suite} {self.backend}".strip() + waits + beside


@dataclass(frozen=True)
class Suites:
    """The bin directories: Debian's Go plugins, ours, and another one if given."""

    go: Path
    ours: Path
    other: Path | None = None

    def base(self, *, with_backends: bool = True) -> list[Side]:
        """Return Go's side, which all are compared with, and the other suite's."""
        backends = ("", NFTABLES) if with_backends else ("",)
        others = [Side(OTHER, self.other, backend) for backend in backends] if self.other else []
        return [Side(GO, self.go), *others]

    def our(self, start: str, backend: str = "", answer: str = GONE) -> Side:
        """Return one side of ours."""
        env = {"PYCNI_DEL": answer} | ({"PYCNI_WARM": "off"} if start == COLD else {})
        return Side(start, self.ours, backend, answer, env, _SETTINGS[start])

    def all_ours(self) -> list[Side]:
        """Return every way to start ours with both backends, and DEL that waits where it is warm."""
        waiting = product((WARM, SINGLE), BACKENDS, (ACK,))
        usual = product((WARM, SINGLE, COLD), BACKENDS, (GONE,))
        return [self.our(*each) for each in (*usual, *waiting)]


def version_of(bindir: Path) -> str:
    """Return the version of a bin directory, from Debian or else its interface plugin. Raises CniError."""
    query, bridge = child.find("dpkg-query"), str(bindir / INTERFACE)
    owner = child.run([query, "--search", bridge]).stdout.decode().partition(":")[0] if query else ""
    if query and owner:
        asked = ["--show", "--showformat", "${Package} ${Version}", owner]
        return child.run([query, *asked]).stdout.decode()
    said = child.run([bridge], env=BARE_ENV)
    found = re.search(r"plugin (v[0-9][\w.+-]*)", said.stderr + said.stdout.decode())
    return found[1] if found else "version unknown"
