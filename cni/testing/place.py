"""Run a test's code and programs in a mount and a network namespace.

A process with threads cannot enter a mount namespace, and a test runner may have threads: code runs in a
forked child. A thread that shares no directory with the others can: such a one starts programs, and runs
functions of this package.
"""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar, cast

from cni.testing import agent
from cni.testing.namespaces import entered, setns, unshare_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

P = ParamSpec("P")
T = TypeVar("T")

# A runtime passes almost nothing to its plugins; neither do the tests.
BARE_ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}

# Modules whose functions the agent calls, with those of this package: no test changes them. A child of the
# agent would import the plugin that `direct` calls, which takes longer than a fork of the test process.
_OF_AGENT = {"os", "posix", "pathlib", "shutil", "cni.service.control", "cni.warm.control"}
_PID = os.getpid()
_MOST_THREADS = 32
# Time limits grow by this factor on a slow kernel.
SLOWNESS = float(os.environ.get("PYCNI_SLOWNESS", "1"))


class CommandError(AssertionError):
    """A program that a test needs has failed; the message has its arguments and its output."""


@dataclass(frozen=True)
class Place:
    """The namespaces of the process `holder`; `netns` replaces its network namespace.

    `netns` is a path as seen in the holder's mount namespace.
    """

    holder: int
    netns: str = ""
    own_user: bool = False

    @property
    def namespaces(self) -> tuple[str, str]:
        """The paths of the network namespace and of the mount namespace, in the order to enter them."""
        return self._net_path, f"/proc/{self.holder}/ns/mnt"

    @property
    def _net_path(self) -> str:
        base = f"/proc/{self.holder}"
        return f"{base}/root{self.netns}" if self.netns else f"{base}/ns/net"

    def run(
        self,
        argv: Sequence[str],
        stdin: str = "",
        *,
        env: Mapping[str, str] | None = None,
        check: bool = True,
        timeout_s: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in here. Raise CommandError if it fails and `check` is set. `env` replaces ours."""
        with self._start(argv, env) as process:
            try:
                stdout, stderr = process.communicate(stdin, timeout_s * SLOWNESS)
            except BaseException:
                process.kill()
                raise
        if check and process.returncode:
            raise CommandError(f"{' '.join(argv)} failed with {process.returncode}: {stderr}{stdout}")
        return subprocess.CompletedProcess(argv, process.returncode, stdout, stderr)

    def popen(
        self, argv: Sequence[str], stdin: str = "", *, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start a program in this place. The test must end it, for example kill it during its work."""
        process = self._start(argv, env)
        assert process.stdin is not None
        process.stdin.write(stdin)
        process.stdin.close()
        process.stdin = None
        return process

    def _start(self, argv: Sequence[str], env: Mapping[str, str] | None) -> subprocess.Popen[str]:
        variables = dict(BARE_ENV if env is None else env)
        # nsenter tells what cannot be started, as programs do. A forked child has no thread to start it by.
        # A start by nsenter takes 1.5 ms of CPU instead of 0.85, and a run of all tests has 50,000 starts.
        if self._has_threads:
            with suppress(OSError):
                return self._by_thread(_popen, argv, variables)
        return _popen([*self._nsenter(), *argv], variables)

    @property
    def _has_threads(self) -> bool:
        return not self.own_user and os.getpid() == _PID

    def _by_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function in a thread that enters the namespaces for so long, and return its result."""

        def run() -> T:
            network, mounts = self.namespaces
            with entered(network), entered(mounts, "mnt"):
                return function(*args, **kwargs)

        return _threads().submit(run).result()

    def _nsenter(self) -> list[str]:
        user = [f"--user=/proc/{self.holder}/ns/user", "--preserve-credentials"] if self.own_user else []
        mount = f"--mount=/proc/{self.holder}/ns/mnt"
        return ["nsenter", *user, f"--net={self._net_path}", mount, "--wd=/", "--"]

    def visit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function in here, in this process if it can. Return its result, or raise its exception.

        `call` takes 2.5 ms of CPU more, and most tests have four of these. The function uses
        /proc/thread-self for /proc/self, and leaves the process as it was.
        """
        if self._has_threads:
            return self._by_thread(function, *args, **kwargs)
        return self.call(function, *args, **kwargs)

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a Python function in here. Return its result, or raise its exception.

        It runs in a child: changes of memory are lost, and result and exception must be picklable.
        """
        reader, writer = os.pipe()
        request = self._request(function, args, kwargs)
        child = 0
        if request:
            agent.own().start(request, [writer])
        elif (child := fork()) == 0:
            gc.disable()
            os.close(reader)
            self._answer([writer], function, args, kwargs)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            answer = pipe.read()
        status = os.waitpid(child, 0)[1] if child else None
        if not answer:
            raise RuntimeError(f"{function!r} ended without an answer, wait status {status}")
        worked, value, cpu_s = pickle.loads(answer)  # noqa: S301 - written by our own child
        if not child:
            agent.Agent.cpu_s += cpu_s
        if not worked:
            raise cast("BaseException", value)
        return cast("T", value)

    def _request(self, function: Callable[..., object], args: Any, kwargs: Any) -> bytes:
        """Return the request by which the agent calls a function; b"" for one that this process must call."""
        module = getattr(function, "__module__", None) or ""
        is_of_package = module.startswith("cni.testing.") and module != "cni.testing.direct"
        if module not in _OF_AGENT and not is_of_package:
            return b""
        request = agent.pack(self._answer, function, args, kwargs)
        return request if len(request) < agent.LARGEST else b""

    def _answer(self, fds: list[int], function: Callable[..., object], args: Any, kwargs: Any) -> NoReturn:
        [writer] = fds
        try:
            self.enter()
            answer = pickle.dumps((True, function(*args, **kwargs), agent.cpu_s()))
        except BaseException as error:  # noqa: BLE001 - the parent raises all of them
            error.add_note("in the child:\n" + traceback.format_exc())
            try:
                answer = pickle.dumps((False, error, agent.cpu_s()))
                pickle.loads(answer)  # noqa: S301 - some exceptions pickle but do not come back
            except Exception:  # noqa: BLE001 - pickling calls code of the exception
                answer = pickle.dumps((False, RuntimeError(traceback.format_exc()), agent.cpu_s()))
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(answer)
        os._exit(0)

    def enter(self) -> None:
        """Move this single-threaded process in here for the rest of its life."""
        user = [f"/proc/{self.holder}/ns/user"] if self.own_user else []
        for fd in [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in (*user, *self.namespaces)]:
            setns(fd)
            os.close(fd)
        os.chdir("/")


@cache
def _threads() -> ThreadPoolExecutor:
    """Return the threads that enter namespaces: one, unless several are needed at the same time."""
    return ThreadPoolExecutor(_MOST_THREADS, initializer=unshare_directory)


def _popen(argv: Sequence[str], env: dict[str, str]) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=env, cwd="/")


def fork() -> int:
    """Fork. Newer Pythons warn of that in a process with threads, but the child starts none."""
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


@lru_cache
def why_no_namespaces() -> str:
    """Return why this user cannot create namespaces here; "" if it can."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    try:
        command = ["unshare", *user, "--net", "--mount", "true"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return f"namespaces need unshare of util-linux: {error}"
    return f"namespaces cannot be made here: {done.stderr.strip()}" if done.returncode else ""
