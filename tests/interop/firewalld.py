"""Debian's firewalld on a test's host: a copy of the machine's settings, on a D-Bus of its own.

Needs the packages firewalld and dbus-daemon, and root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cni.testing.place import BARE_ENV

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.testing import Host

_SETTINGS = Path("/etc/firewalld")
# Root may do everything, and nobody else is there.
_BUS = """\
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""


def why_no_firewalld() -> str:
    """Return why firewalld cannot run here, "" if it can."""
    path = BARE_ENV["PATH"]
    missing = [name for name in ("firewalld", "dbus-daemon") if not shutil.which(name, path=path)]
    if missing:
        return f"not installed: {', '.join(missing)}"
    return "" if os.geteuid() == 0 else "firewalld needs root"


class Firewalld:
    """A firewalld that ends with the context; `backend` is its FirewallBackend, `folder` an empty one."""

    def __init__(self, host: Host, folder: Path, backend: str) -> None:
        self._host = host
        self._folder = folder
        self._processes: list[subprocess.Popen[str]] = []
        settings = folder / "settings"
        shutil.copytree(_SETTINGS, settings)
        file = settings / "firewalld.conf"
        lines = [line for line in file.read_text().splitlines() if not line.startswith("FirewallBackend=")]
        file.write_text("\n".join([*lines, f"FirewallBackend={backend}", ""]))
        (folder / "bus.conf").write_text(_BUS)
        host.run(["mkdir", "-p", "/run/dbus"])
        try:
            self._start(
                ["dbus-daemon", "--nofork", f"--config-file={folder}/bus.conf"], _PING, "method return"
            )
            log = ["--log-target", "file", "--log-file", f"{folder}/log"]
            command = ["firewalld", "--nofork", "--nopid", "--system-config", str(settings), *log]
            self._start(command, _STATE, "RUNNING")
        except BaseException:
            self.close()
            raise

    def _start(self, command: Sequence[str], question: Sequence[str], answer: str) -> None:
        """Start a program, and wait until a question on the bus has an answer with a word in it."""
        output = self._folder / command[0]
        shell = ["sh", "-c", 'exec "$@" >"$0" 2>&1', str(output), *command]
        self._processes.append(self._host.place.popen(shell))
        deadline = time.monotonic() + 120
        while answer not in self._host.place.run([*_ASK, *question], check=False).stdout:
            if time.monotonic() > deadline or self._processes[-1].poll() is not None:
                raise RuntimeError(f"{command[0]} did not start: {output.read_text()}")
            time.sleep(0.1)

    def cmd(self, *arguments: str) -> str:
        """Run firewall-cmd and give what it printed; CommandError when it fails."""
        return self._host.run(["firewall-cmd", *arguments])

    def trust(self, link: str) -> None:
        """Accept all packets that arrive on a link, now and after a reload."""
        self._host.run([*_ASK, *_ADD, "string:trusted", f"string:{link}"])
        self.cmd("--permanent", "--zone=trusted", f"--add-interface={link}")

    def close(self) -> None:
        """End it, the newest first."""
        for process in self._processes[::-1]:
            process.terminate()
            try:
                process.communicate(timeout=120)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# firewall-cmd takes 0.3 s of CPU, dbus-send 3 ms.
_ASK = ["dbus-send", "--system", "--print-reply"]
_PING = ["--dest=org.freedesktop.DBus", "/", "org.freedesktop.DBus.Peer.Ping"]
_NAME, _OBJECT = "org.fedoraproject.FirewallD1", "/org/fedoraproject/FirewallD1"
_TO = [f"--dest={_NAME}", _OBJECT]
_STATE = [*_TO, "org.freedesktop.DBus.Properties.Get", f"string:{_NAME}", "string:state"]
_ADD = [*_TO, f"{_NAME}.zone.addInterface"]
