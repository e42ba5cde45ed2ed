"""Start a program that is no child of this process and has nothing of it but some sockets.

It is started by two forks, and executes the interpreter again: it has no other descriptor, no signal handler
and no memory of its caller.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cni.service.guard import LISTEN_FD, OPTION

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The interpreter, its options, the program, OPTION and the helper's name.
_FIXED_ARGUMENTS = 6


def command(name: str, path: str, arguments: Sequence[object], sockets: Sequence[str]) -> list[str]:
    """Return the command line of a guard; `sockets` are the names of the sockets after the request socket."""
    program = (
        f"import sys; sys.path[:] = {sys.path!r}; from cni.service import guard; "
        f"guard.run({path!r}, sys.argv[3:], *{tuple(arguments)!r})"
    )
    return [sys.executable, "-ISB", "-c", program, OPTION, name, *sockets]


def own_command(sockets: Sequence[str]) -> list[str]:
    """Return the command line that has started this process, a helper, with other sockets."""
    return [*sys.orig_argv[:_FIXED_ARGUMENTS], *sockets]


def start(command_line: Sequence[str], fds: Sequence[int]) -> None:
    """Start a program with the descriptors `fds` from LISTEN_FD on."""
    child = os.fork()
    if child == 0:
        _become(command_line, fds)
    os.waitpid(child, 0)


def execute(command_line: Sequence[str], fds: Sequence[int]) -> NoReturn:
    """Replace the program of this process; the new one has the descriptors `fds` from LISTEN_FD on."""
    # Copies first: a descriptor may be the place of another one.
    copies = [fcntl.fcntl(fd, fcntl.F_DUPFD, LISTEN_FD + len(fds)) for fd in fds]
    for at, fd in enumerate(copies):
        os.dup2(fd, LISTEN_FD + at)
    os.closerange(LISTEN_FD + len(fds), os.sysconf("SC_OPEN_MAX"))
    os.execve(command_line[0], list(command_line), _environment())  # noqa: S606 - our own interpreter


def _become(command_line: Sequence[str], fds: Sequence[int]) -> NoReturn:
    try:
        os.setsid()
        if os.fork() == 0:
            for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            null, copies = os.open("/dev/null", os.O_RDWR), [os.dup(each) for each in fds]
            for fd in range(3):
                os.dup2(null, fd)
            os.umask(0o022)
            os.chdir("/")
            _reset_priority()
            execute(command_line, copies)
    finally:
        os._exit(0)


def _reset_priority() -> None:
    """Reset priorities of the first caller, which must not last."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, 0)
        Path("/proc/self/oom_score_adj").write_text("0")
    except OSError:
        return


def _environment() -> dict[str, str]:
    """Return the environment of a helper: in a bundle the interpreter needs the libraries beside it."""
    tree = Path(sys.executable).parents[1]
    libraries = {"LD_LIBRARY_PATH": f"{tree}/lib"} if (tree / "lib/pycni.pyc").exists() else {}
    return {"PATH": _PATH, "LANG": "C.UTF-8"} | libraries
