"""Run a test's code in a mount and a network namespace, by a forked child without threads.

A process with threads cannot enter a mount namespace, and a test runner may have threads: each call forks.
"""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import traceback
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar, cast

from cni.testing import agent
from cni.testing.namespaces import setns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

P = ParamSpec("P")
T = TypeVar("T")

# A runtime passes almost nothing to its plugins; neither do the tests.
BARE_ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}

# Modules whose functions the agent calls, with those of this package: no test changes them. A child of the
# agent would import the plugin that `direct` calls, which takes longer than a fork of the test process.
_OF_AGENT = {"os", "posix", "pathlib", "shutil"}
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
        done = subprocess.run(
            [*self._nsenter(), *argv],
            input=stdin,
            capture_output=True,
            text=True,
            env=dict(BARE_ENV if env is None else env),
            timeout=timeout_s * SLOWNESS,
            check=False,
        )
        if check and done.returncode:
            raise CommandError(f"{' '.join(argv)} failed with {done.returncode}: {done.stderr}{done.stdout}")
        return done

    def popen(
        self, argv: Sequence[str], stdin: str = "", *, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start a program in this place. The test must end it, for example kill it during its work."""
        process = subprocess.Popen(
            [*self._nsenter(), *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(BARE_ENV if env is None else env),
        )
        assert process.stdin is not None
        process.stdin.write(stdin)
        process.stdin.close()
        process.stdin = None
        return process

    def _nsenter(self) -> list[str]:
        user = [f"--user=/proc/{self.holder}/ns/user", "--preserve-credentials"] if self.own_user else []
        mount = f"--mount=/proc/{self.holder}/ns/mnt"
        return ["nsenter", *user, f"--net={self._net_path}", mount, "--wd=/", "--"]

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
