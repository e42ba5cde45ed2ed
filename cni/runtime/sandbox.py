"""The process that starts COMMAND of `pycni run` in namespaces of its own, and waits for it.

It is the first process of a PID namespace: when it ends, also because its parent was killed, the kernel kills
COMMAND and all that COMMAND has started. It is forked and executes no other program.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from cni.errors import CniError, Code, of_system
from cni.kernel import link, mounts, processes
from cni.kernel.rtnetlink import Netlink

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

CANNOT_RUN, NOT_FOUND = 126, 127
_KILLED = 128
_LARGEST = 1 << 16
_GO = b"go"
# execve(2) and the search in PATH end so if there is no such program.
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}


class Inside(NamedTuple):
    """The namespaces and the start of COMMAND.

    `hostname` "" is the host's. COMMAND ignores the signals `ignored`, as the caller of `pycni run` wants.
    """

    command: tuple[str, ...]
    env: Mapping[str, str]
    workdir: str = ""
    has_network: bool = True
    hostname: str = ""
    ignored: frozenset[int] = frozenset()


class NotStartedError(CniError):
    """COMMAND was not started; `status` is the exit code that runtimes have for the reason."""

    def __init__(self, command: str, number: int) -> None:
        is_absent = number in _ABSENT
        super().__init__(
            Code.IO_FAILURE,
            f"could not run {command}: {os.strerror(number).lower()}",
            "Name a program of this host: pycni run has no images."
            if is_absent
            else "Name a program that may be executed.",
        )
        self.status = NOT_FOUND if is_absent else CANNOT_RUN


class Sandbox:
    """The process, as its parent sees it; `has_terminal`: signals of a terminal reach COMMAND without us."""

    def __init__(self, pid: int, control: socket.socket, *, has_terminal: bool) -> None:
        self.pid = pid
        self.has_terminal = has_terminal
        self._control = control
        self._status: int | None = None

    def start(self, command: str, files: Sequence[tuple[str, str]]) -> int:
        """Start COMMAND, and return a pidfd of it. `files` are pairs of a file and the path that shows it.

        Raise NotStartedError, or CniError 100 if a file cannot be mounted.
        """
        self._control.send(json.dumps(list(files)).encode())
        return _read_answer(self._control, command)

    def poll(self) -> int | None:
        """Return the exit code of COMMAND when all processes have ended, else None."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                self._status = code if code >= 0 else _KILLED - code
        return self._status

    def end(self) -> None:
        """Kill all processes, and wait for their end."""
        self._control.close()
        if self._status is None:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)


@contextmanager
def prepared(inside: Inside) -> Iterator[Sandbox]:
    """Make the namespaces for the block, with a process that is ready to start COMMAND. Raise CniError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    has_terminal = _has_terminal()
    # No handler of this process runs in the child.
    before = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    try:
        with theirs:
            pid = processes.fork_first()
            if pid == 0:
                _be_first(theirs, inside, has_terminal=has_terminal)
        sandbox = Sandbox(pid, ours, has_terminal=has_terminal)
    except BaseException:
        ours.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        _read_answer(ours, "")
        yield sandbox
    finally:
        sandbox.end()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _read_answer(control: socket.socket, command: str) -> int:
    """Return the pidfd in an answer, -1 without one. Raise CniError for an error."""
    answer, fds, _, _ = socket.recv_fds(control, _LARGEST, 1)
    if not answer:
        raise CniError(Code.INTERNAL, "a process of pycni run was killed", "Call the command again.")
    document = json.loads(answer)
    if "errno" in document:
        raise NotStartedError(command, document["errno"])
    if "msg" in document:
        raise CniError(document["code"], document["msg"], document["details"])
    return fds[0] if fds else -1


def _be_first(control: socket.socket, inside: Inside, *, has_terminal: bool) -> NoReturn:
    """Run the process. It ignores all signals but SIGKILL, as the first process of a namespace."""
    status = _KILLED + signal.SIGKILL
    try:
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            with suppress(OSError):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _close_others(control.fileno())
        _enter(inside)
        control.send(b"{}")
        # Without an answer the parent has ended: it may have ended before the kernel watched it.
        if request := control.recv(_LARGEST):
            status = _run(control, inside, json.loads(request), has_terminal=has_terminal)
    except (CniError, OSError) as error:
        failed = error if isinstance(error, CniError) else of_system(error, "the new namespaces")
        control.send(json.dumps({"details": "", **failed.to_dict()}).encode())
    finally:
        os._exit(status)


def _close_others(own: int) -> None:
    """Close what the parent would have closed by executing a program, as its locks."""
    for fd in [int(each.name) for each in Path("/proc/self/fd").iterdir()]:
        with suppress(OSError):
            if fd != own and fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
                os.close(fd)


def _enter(inside: Inside) -> None:
    """Move to the namespaces, and let /proc, /sys and lo be those of them. Raise CniError 100."""
    flags = processes.MOUNTS
    flags |= processes.NETWORK if inside.has_network else 0
    flags |= processes.HOSTNAME if inside.hostname else 0
    processes.unshare(flags)
    mounts.isolate()
    mounts.renew("proc", "/proc")
    if inside.hostname:
        socket.sethostname(inside.hostname)
    if inside.has_network:
        mounts.renew_sysfs()
        with Netlink() as nl:
            lo = link.get(nl, "lo")
            nl.batch([link.set_flags("lo", lo.index, on=link.IFF_UP)])


def _run(
    control: socket.socket, inside: Inside, files: Sequence[tuple[str, str]], *, has_terminal: bool
) -> int:
    """Start COMMAND, report it, and wait for its end. Return its exit code."""
    for source, target in files:
        mounts.bind(source, target)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _execute(writer, inside, has_terminal=has_terminal)
    os.close(writer)
    if failure := os.read(reader, 16):
        control.send(json.dumps({"errno": int(failure)}).encode())
        return 0
    socket.send_fds(control, [b"{}"], [os.pidfd_open(child)])
    # The readers and writers of these streams wait for COMMAND, not for this process.
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else _KILLED - code


def _execute(writer: int, inside: Inside, *, has_terminal: bool) -> NoReturn:
    """Become COMMAND. A failure is written to the pipe, which closes by itself otherwise."""
    number = errno.EIO
    try:
        if not has_terminal:
            # So a signal for the process group of `pycni run` comes once: from `pycni run`.
            os.setpgid(0, 0)
        for each in inside.ignored:
            signal.signal(each, signal.SIG_IGN)
        if inside.workdir:
            os.chdir(inside.workdir)
        os.execvpe(inside.command[0], inside.command, dict(inside.env))  # noqa: S606 - the user's command
    except OSError as error:
        number = error.errno or number
    finally:
        os.write(writer, str(number).encode())
        os._exit(1)
