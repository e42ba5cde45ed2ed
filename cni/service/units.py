"""systemd units for helpers: a control group with a memory limit, and a restart when all of it is killed.

The socket unit listens as soon as it is started; the first request starts the service, so that nothing runs
where no container needs the helper. systemd binds the socket under a fixed name, and renames it to the path
that callers use, as for the warm server.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path("/etc/systemd/system")
SOCKET_NAME, SERVICE_NAME = "pycni-helper@.socket", "pycni-helper@.service"
_BOUND = "/run/pycni/helpers/%i.systemd"

_SOCKET = """\
[Unit]
Description=Requests to the helper of %i, for container networks
Before=containerd.service crio.service kubelet.service

[Socket]
ListenSequentialPacket={bound}
SocketMode=0600
DirectoryMode=0700
Backlog=128
ExecStartPost=/bin/sh -c 'exec mv -fT {bound} "$$({command} helper path %i)"'
ExecStopPost=/bin/sh -c 'exec rm -f "$$({command} helper path %i)"'

[Install]
WantedBy=sockets.target
"""

# No sandboxing options: they put the helper into other namespaces, where callers do not find it.
_SERVICE = """\
[Unit]
Description=Helper of %i, for container networks
Requires=pycni-helper@%i.socket
After=pycni-helper@%i.socket

[Service]
ExecStart={command} helper run %i
# Also if the guard is killed. The helper ends by itself when it has no work.
Restart=on-failure
RestartSec=100ms
MemoryMax=96M
OOMScoreAdjust=-500
"""


def units(command: Path) -> dict[str, str]:
    """Return the units by file name; `command` is the installed `pycni`."""
    return {
        SOCKET_NAME: _SOCKET.format(bound=_BOUND, command=command),
        SERVICE_NAME: _SERVICE.format(command=command),
    }
