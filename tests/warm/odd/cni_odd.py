"""A plugin that misbehaves in the way that `do` names. It writes facts about its process to stderr."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

from cni.conf import NetConf
from cni.errors import CniError
from cni.kernel import nfnetlink
from cni.log import note
from cni.plugin import Plugin
from cni.result import Result
from cni.warm import leak_check

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.request import Request
    from cni.undo import Undo

DOING, UNDONE = Path("/run/doing"), Path("/run/undone")
WAIT_S = 40
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWNET = 0x20000, 0x4000000, 0x40000000


class Conf(NetConf):
    """The key of this plugin."""

    do: str = ""


def unshare(kind: int) -> None:
    assert ctypes.CDLL(None).unshare(kind) == 0


def leave_dead_child() -> None:
    if os.fork() == 0:
        os._exit(0)


def leave_open_files() -> None:
    for _ in range(100):
        os.open("/etc/hostname", os.O_RDONLY)


def start_sleep() -> None:
    subprocess.Popen(
        ["/bin/sleep", "2"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def wait() -> None:
    DOING.write_text(str(os.getpid()))
    time.sleep(WAIT_S)


def stop() -> None:
    """Stop this process, as a debugger does."""
    DOING.write_text(str(os.getpid()))
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(WAIT_S)


def nap() -> None:
    DOING.write_text(str(os.getpid()))
    time.sleep(1)


class _SlowToFlush:
    """A stdout whose flush at the end of a call is slow once."""

    def __init__(self, real: TextIO) -> None:
        self._real = real

    def flush(self) -> None:
        sys.stdout = self._real
        nap()


def end_slowly() -> None:
    sys.stdout = cast("TextIO", _SlowToFlush(sys.stdout))


def fail() -> None:
    raise CniError(101, "as asked")


def die_soon() -> None:
    """Let the kernel kill this process in a while, whatever the interpreter is doing then."""
    signal.setitimer(signal.ITIMER_REAL, float(os.environ["DIE_AFTER_S"]))


def die_soon_and_fail() -> None:
    die_soon()
    fail()


def print_much() -> None:
    sys.stdout.write("left in a buffer")


# What ends the worker.
LEAKS: dict[str, Callable[[], object]] = {
    "open file": lambda: os.open("/etc/hostname", os.O_RDONLY),
    "many open files": leave_open_files,
    "socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).detach(),
    "closed file": lambda: os.close(3),
    "other file in its place": lambda: os.dup2(2, 3),
    "thread": lambda: threading.Thread(target=time.sleep, args=(20,), daemon=True).start(),
    "child": start_sleep,
    "dead child": leave_dead_child,
    "network namespace": lambda: unshare(CLONE_NEWNET),
    "mount namespace": lambda: unshare(CLONE_NEWNS),
    "host name namespace": lambda: unshare(CLONE_NEWUTS),
    "root folder": lambda: os.chroot("/usr"),
    "blocked signal": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP]),
    "ignored signal": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    "handled signal": lambda: signal.signal(signal.SIGHUP, lambda *_: None),
    "limit": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300)),
    "timer": lambda: signal.setitimer(signal.ITIMER_REAL, 60),
    "niceness": lambda: os.nice(1),
    "group": lambda: os.setgroups([1, 2]),
    "import path": lambda: sys.path.append("/opt"),
    "error": fail,
    "exit": lambda: sys.exit(3),
}

# What a worker puts back.
CHANGES: dict[str, Callable[[], object]] = {
    "working directory": lambda: os.chdir("/usr"),
    "umask": lambda: os.umask(0o007),
    "variable": lambda: os.environ.update(LEFT="over"),
    "handlers of a call": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "output in a buffer": print_much,
    "own descriptors": lambda: os.dup2(2, 0),
}


def netfilter_sockets(pid: int | str) -> set[str]:
    """Return the netfilter sockets of a process in its network namespace, as links: proc(5), net/netlink."""
    rows = [line.split() for line in Path(f"/proc/{pid}/net/netlink").read_text().splitlines()[1:]]
    known = {f"socket:[{row[-1]}]" for row in rows if row[1] == "12"}
    return known & {str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir() if each.is_symlink()}


def show_netfilter_sockets() -> None:
    nfnetlink.kept()
    note(json.dumps(sorted(netfilter_sockets("self"))))


def show_waiting() -> None:
    """Note the seconds since this process was forked in which it neither ran nor waited for a core."""
    # proc(5), stat: the start in ticks since boot is the 20th field behind the name in brackets.
    start = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    run_ns, queued_ns, _ = map(int, Path("/proc/self/schedstat").read_text().split())
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - start / os.sysconf("SC_CLK_TCK")
    note(f"{age_s - (run_ns + queued_ns) / 1e9:.3f}")


DEEDS = {
    **LEAKS,
    **CHANGES,
    "": lambda: None,
    "wait": wait,
    "stop": stop,
    "nap": nap,
    "die soon": die_soon,
    "die soon and fail": die_soon_and_fail,
    "end slowly": end_slowly,
    "netfilter sockets": show_netfilter_sockets,
    "show waiting": show_waiting,
}


def add(conf: Conf, _request: Request, undo: Undo) -> Result:
    modules = " ".join(sorted(sys.modules))
    who = {"pid": os.getpid(), "parent": os.getppid()}
    facts = {**leak_check.snapshot(), **who, "modules": modules, "frozen": gc.get_freeze_count()}
    note(json.dumps({name: str(value) for name, value in facts.items()}))
    undo.add("say that it was undone", UNDONE.write_text, "yes")
    DEEDS[conf.do]()
    return Result()


PLUGIN = Plugin("odd", "does what it should not", Conf, add, lambda _conf, _request: None)
