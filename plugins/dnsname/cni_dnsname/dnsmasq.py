"""Take a network over from podman's plugin of this name, which runs a dnsmasq for each network.

That plugin keeps its names in a hosts file and finds its dnsmasq by a process ID file, both in a folder of
the network. Our server reads the hosts file, too, and its process ID is in the other. So either plugin works
on containers of the other: the Go plugin changes its file, and sends our server the signal for dnsmasq.
"""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cni.dns import records
from cni.state import files
from cni.state.lock import locked

if TYPE_CHECKING:
    from cni.request import Request
    from cni_dnsname.conf import DnsnameConf

_ROOT = Path("/run/containers/cni/dnsname")
_OF_USER = "containers/cni/dnsname"
_HOSTS, _PID, _LOCK, _CONF = "addnhosts", "pidfile", "lock", "dnsmasq.conf"
_ENDS_WITHIN_S = 2


def find_folder(conf: DnsnameConf, request: Request) -> Path | None:
    """Return the folder that the Go plugin has for the network; None if it has none."""
    user = request.env.get("XDG_RUNTIME_DIR", "")
    folder = (Path(user) / _OF_USER if user else _ROOT) / conf.name
    return folder if folder.is_dir() else None


def take_over(folder: Path) -> tuple[str, str]:
    """End the network's dnsmasq; return the paths of the hosts file and of the process ID file."""
    files.check_keepers(folder)
    with locked(folder / _LOCK):
        _end(folder)
    return str(folder / _HOSTS), str(folder / _PID)


def withdraw(folder: Path, conf: DnsnameConf, request: Request, name: str) -> None:
    """Remove a container's lines from the hosts file, and the folder with the last line.

    The Go plugin knows a container by its name only. With a result those of its addresses are removed alone.
    """
    files.check_keepers(folder)
    result = request.prev_result
    addresses = {str(each.address.ip) for each in result.ips} if result else None
    with locked(folder / _LOCK):
        lines = (files.read(folder / _HOSTS) or b"").decode(errors="replace").splitlines()
        kept = [each for each in lines if not _is_of(each, name, addresses)]
        if kept == lines:
            return
        if kept or records.has_network(conf.name):
            files.write_atomic(folder / _HOSTS, "".join(f"{each}\n" for each in kept).encode(), 0o644)
            _signal(folder, signal.SIGHUP)
            return
        _end(folder)
        for each in (_HOSTS, _PID, _CONF, _LOCK):
            files.remove(folder / each)
    with suppress(OSError):
        folder.rmdir()


def _is_of(line: str, name: str, addresses: set[str] | None) -> bool:
    address, *names = line.split() or [""]
    return names[:1] == [name] and (addresses is None or address in addresses)


def _end(folder: Path) -> None:
    """End the network's dnsmasq, and wait for that: its port must be free."""
    pidfd = _signal(folder, signal.SIGTERM)
    if pidfd is None:
        return
    try:
        if not select.select([pidfd], [], [], _ENDS_WITHIN_S)[0]:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            select.select([pidfd], [], [], _ENDS_WITHIN_S)
    except ProcessLookupError:
        return
    finally:
        os.close(pidfd)


def _signal(folder: Path, number: signal.Signals) -> int | None:
    """Signal the network's dnsmasq; return its pidfd to wait for its end, None if none runs."""
    text = (files.read(folder / _PID) or b"").strip()
    if not text.isdigit() or int(text) == 0:
        return None
    try:
        pidfd = os.pidfd_open(int(text))
    except OSError:
        return None
    try:
        # Another process may have the number by now.
        words = Path(f"/proc/{int(text)}/cmdline").read_bytes().split(b"\0")
        if not any(os.fsencode(str(folder / _CONF)) in each for each in words):
            raise ProcessLookupError
        signal.pidfd_send_signal(pidfd, number)
    except OSError:
        os.close(pidfd)
        return None
    if number == signal.SIGTERM:
        return pidfd
    os.close(pidfd)
    return None
