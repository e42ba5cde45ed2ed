"""Have a plugin end, stop or pause at one of the points of `cni.faults`.

A call says where by the variable PYCNI_FAULT: `kill store.written 3` is a SIGKILL when the process comes by
that point for the third time, `term` a SIGTERM, `stop` a SIGSTOP until somebody sends a SIGCONT; `tell`
only counts. Each meeting is told on stderr. Only executables that are made for it heed the variable.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, NamedTuple

from cni import faults

if TYPE_CHECKING:
    from cni.testing.answer import Answer

VARIABLE = "PYCNI_FAULT"
KILL, TERM, STOP, TELL = "kill", "term", "stop", "tell"
_SIGNALS = {KILL: signal.SIGKILL, TERM: signal.SIGTERM, STOP: signal.SIGSTOP}
_TOLD = "pycni: fault: "
# What a script does before it is a plugin.
ARMING = "from cni.testing import faults\nfaults.arm()\n"


class Fault(NamedTuple):
    """What is to happen, and where: at the time `number` that a process comes by `point`."""

    action: str
    point: str
    number: int = 1

    @property
    def env(self) -> dict[str, str]:
        """The variable for the call."""
        # Workers serve many calls: with a text of its own each call begins to count anew.
        return {VARIABLE: f"{self.action} {self.point} {self.number} {os.urandom(4).hex()}"}

    def was_met(self, answer: Answer) -> bool:
        """Tell whether the call came by."""
        return f"{self.point} {self.number}" in list_met(answer)


def list_met(answer: Answer) -> list[str]:
    """Give the points that a call came by, each with how often so far: ["lock.taken 1", ...]."""
    lines = answer.stderr.splitlines()
    return [line.removeprefix(_TOLD) for line in lines if line.startswith(_TOLD)]


def arm() -> None:
    """Heed the variable in this process and in those that it forks."""
    faults.arm(_Meeting())


class _Meeting:
    def __init__(self) -> None:
        self._spec = ""
        self._met: dict[str, int] = {}

    def __call__(self, name: str) -> None:
        if name not in faults.POINTS:
            raise ValueError(f"{name} is not listed in cni.faults.POINTS")
        spec = os.environ.get(VARIABLE, "")
        # What goes on in another thread when the answer is on its way would come by at any time.
        if not spec or threading.current_thread() is not threading.main_thread():
            return
        if spec != self._spec:
            self._spec, self._met = spec, {}
        self._met[name] = self._met.get(name, 0) + 1
        action, wanted, number, _ = spec.split(" ")
        if action == TELL or (name, str(self._met[name])) == (wanted, number):
            os.write(2, f"{_TOLD}{name} {self._met[name]}\n".encode())
            if action in _SIGNALS:
                os.kill(os.getpid(), _SIGNALS[action])
