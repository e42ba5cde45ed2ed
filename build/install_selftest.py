"""The self-test: ADD and DEL of new plugins, cold and warm, in private namespaces.

The installer creates the namespaces itself, so that it needs no tool: one network namespace is the host, one
the container, and a mount namespace has an empty /run. The machine is not changed.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cni.errors import CniError
from cni.kernel.child import run
from cni.warm import control
from cni.warm.log import FILE

if TYPE_CHECKING:
    from collections.abc import Iterator

_CLONE_NEWNS, _CLONE_NEWNET = 0x20000, 0x40000000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
_PR_SET_PDEATHSIG = 1
_TIMEOUT_S = 60
# The first call from new namespaces does not start a server, a later call does.
_ROUNDS = 3
_WARM_OFF = Path("/etc/cni/pycni/warm-off")
_NAMES = {"cniVersion": "1.0.0", "name": "pycni-selftest"}
_IPAM = {
    "type": "host-local",
    "dataDir": "/run/pycni-selftest",
    "ranges": [[{"subnet": "192.0.2.0/24"}]],
}
# Interface and configuration by plugin. bridge calls host-local. portmap is not tested, because nftables or
# iptables may be installed later.
_TESTED: dict[str, tuple[str, dict[str, Any]]] = {
    "loopback": ("lo", {**_NAMES, "type": "loopback"}),
    "bridge": (
        "eth0",
        {**_NAMES, "type": "bridge", "bridge": "pycni-selftest", "isGateway": True, "ipam": _IPAM},
    ),
}


class SelfTestError(Exception):
    """A plugin failed; the message is for the user who installs."""


def why_not() -> str:
    """Return why this process may not create the namespaces, "" if it may."""
    if os.geteuid():
        return "this process is not run by root"
    child = os.fork()
    if child == 0:
        try:
            _unshare(_CLONE_NEWNS | _CLONE_NEWNET)
            _make_private_run()
        except OSError as error:
            os._exit(error.errno or 1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    number = os.waitstatus_to_exitcode(status)
    return f"this process may not make namespaces: {os.strerror(number)}" if number > 0 else ""


def run_selftest(folder: Path) -> str:
    """Test the plugins in a folder. Return a summary. Raises SelfTestError."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    # Otherwise the child would write the buffer too.
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            message = _test_in_namespaces(folder)
            status = 0
        except (SelfTestError, CniError, OSError, ValueError) as error:
            message = str(error)
        except BaseException as error:  # noqa: BLE001 - this process has no caller
            message = f"unexpected {type(error).__name__}: {error}"
        os.write(writer, message.encode()[:4000])
        os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        message = file.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    if status:
        raise SelfTestError(message or "the process of the self-test was killed")
    return message


def _test_in_namespaces(folder: Path) -> str:
    _unshare(_CLONE_NEWNS | _CLONE_NEWNET)
    _make_private_run()
    with _container() as netns:
        plugins = [_Plugin(folder / name, netns) for name in _TESTED if (folder / name).exists()]
        for plugin in plugins:
            plugin.add_and_del("off")
        if reason := _why_not_warm():
            return f"ADD and DEL cold; not warm, as {reason}"
        try:
            for _ in range(_ROUNDS):
                for plugin in plugins:
                    plugin.add_and_del("on")
            if not control.find():
                log = FILE.read_text(errors="replace")[-500:] if FILE.exists() else "there is no log"
                raise SelfTestError(f"no warm server has started: {log}")
        finally:
            control.stop_all()
    return "ADD and DEL, cold and warm"


def _why_not_warm() -> str:
    if _WARM_OFF.exists():
        return f"{_WARM_OFF} switches it off"
    limits = (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_DATA, resource.RLIMIT_FSIZE)
    if any(resource.getrlimit(each)[0] != resource.RLIM_INFINITY for each in limits):
        return "this process has limits"
    status = Path("/proc/self/status").read_text()
    if any(line.split() == ["Seccomp:", "2"] for line in status.splitlines()):
        return "this process has a seccomp filter"
    return ""


class _Plugin(NamedTuple):
    """A plugin and the container that it is called for."""

    path: Path
    netns: str

    def add_and_del(self, warm: str) -> None:
        """Attach and detach the container; `warm` is the value of PYCNI_WARM. Raises SelfTestError."""
        ifname, conf = _TESTED[self.path.name]
        env = {"PYCNI_WARM": warm, "CNI_IFNAME": ifname}
        result = self._call("ADD", conf, env)
        if not result.get("ips"):
            raise SelfTestError(f"ADD of {self.path} returned no address: {json.dumps(result)[:300]}")
        self._call("DEL", {**conf, "prevResult": result}, env)

    def _call(self, verb: str, conf: dict[str, Any], more: dict[str, str]) -> dict[str, Any]:
        env = {
            **more,
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": "selftest",
            "CNI_NETNS": self.netns,
            "CNI_PATH": str(self.path.parent),
        }
        done = run([str(self.path)], json.dumps(conf).encode(), env=env, timeout_s=_TIMEOUT_S)
        text = done.stdout.decode(errors="replace").strip()
        if done.status:
            with suppress(ValueError, KeyError, TypeError):
                error = json.loads(text)
                text = f"{error['msg']}; {error.get('details', '')}".rstrip("; ")
            text = text or done.stderr.strip() or f"status {done.status}"
            raise SelfTestError(
                f"{verb} of {self.path.name}, PYCNI_WARM={more['PYCNI_WARM']}, has failed: {text}"
            )
        result: dict[str, Any] = json.loads(text or "{}")
        return result


@contextmanager
def _container() -> Iterator[str]:
    """Yield the path of a new network namespace, which a child process keeps alive."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        status = 1
        with suppress(OSError):
            # The child ends with its parent, even if that is killed.
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            _unshare(_CLONE_NEWNET)
            os.write(writer, b"x")
            signal.pause()
        os._exit(status)
    os.close(writer)
    try:
        if os.read(reader, 1) != b"x":
            raise SelfTestError("cannot create the network namespace of a container")
        yield f"/proc/{child}/ns/net"
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _make_private_run() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for source, target, kind, flags, data in (
        (None, b"/", None, _MS_REC | _MS_PRIVATE, None),
        (b"tmpfs", b"/run", b"tmpfs", 0, b"mode=755"),
    ):
        if libc.mount(source, target, kind, ctypes.c_ulong(flags), data):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), os.fsdecode(target))


def _unshare(kinds: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(kinds):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
