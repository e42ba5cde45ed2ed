"""Kill, stop or pause a plugin at one of the points of `cni.faults`.

The variable PYCNI_FAULT of a call names the point. With `kill store.written 3` the process kills itself by
SIGKILL when it reaches that point for the third time. `term` sends SIGTERM. `stop` sends SIGSTOP, after which
the test must send SIGCONT. `fail` raises an error. With `late` the process makes its next change later, and
hears only then that its launcher has ended, as after a system call that takes long. `tell` only counts. The
process reports each point on stderr. Only executables that are made with faults obey the variable.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from cni import faults
from cni.errors import CniError, Code

if TYPE_CHECKING:
    from cni.testing.answer import Answer

VARIABLE = "PYCNI_FAULT"
KILL, TERM, STOP, FAIL, LATE, TELL = "kill", "term", "stop", "fail", "late", "tell"
_SIGNALS = {KILL: signal.SIGKILL, TERM: signal.SIGTERM, STOP: signal.SIGSTOP}
# Longer than a DEL takes.
_LATE_S = 0.1
_REPORT = "pycni: fault: "
# A script runs these lines before it becomes a plugin.
ARMING = "from cni.testing import faults\nfaults.arm()\n"


class Fault(NamedTuple):
    """An action, for the time `number` that a process reaches `point`."""

    action: str
    point: str
    number: int = 1

    @property
    def env(self) -> dict[str, str]:
        """The variable for the call."""
        # A worker serves many calls: it starts to count again when the value changes.
        return {VARIABLE: f"{self.action} {self.point} {self.number} {os.urandom(4).hex()}"}

    def was_met(self, answer: Answer) -> bool:
        """Return whether the call has reached the point."""
        return f"{self.point} {self.number}" in list_met(answer)


def list_met(answer: Answer) -> list[str]:
    """Return the points that a call has reached, each with its count so far: ["lock.taken 1", ...]."""
    lines = answer.stderr.splitlines()
    return [line.removeprefix(_REPORT) for line in lines if line.startswith(_REPORT)]


def arm() -> None:
    """Obey the variable in this process and in those that it forks."""
    faults.arm(_Meeting())


class _Meeting:
    def __init__(self) -> None:
        self._spec = ""
        self._met: dict[str, int] = {}
        self._is_late = False

    def __call__(self, name: str) -> None:
        if name not in faults.POINTS:
            raise ValueError(f"{name} is not listed in cni.faults.POINTS")
        spec = os.environ.get(VARIABLE, "")
        # Threads continue while the result is written: they reach points at random times.
        if not spec or threading.current_thread() is not threading.main_thread():
            return
        # The first process of a PID namespace, as `pycni run` forks one, cannot kill itself.
        if os.getpid() == 1:
            return
        if self._is_late:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGIO])
            self._is_late = False
        if spec != self._spec:
            self._spec, self._met = spec, {}
        self._met[name] = self._met.get(name, 0) + 1
        action, wanted, number, _ = spec.split(" ")
        if action == TELL or (name, str(self._met[name])) == (wanted, number):
            os.write(2, f"{_REPORT}{name} {self._met[name]}\n".encode())
            if action in _SIGNALS:
                os.kill(os.getpid(), _SIGNALS[action])
            elif action == FAIL:
                raise CniError(Code.STORE, f"the test lets the step after {name} fail")
            elif action == LATE:
                signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])
                self._is_late = True
                time.sleep(_LATE_S)
