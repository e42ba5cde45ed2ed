"""Units of systemd for the warm server: so it has a control group of its own, not that of its first caller.

systemd binds the socket under a name that does not depend on the host, then lets a launcher say what
callers look for, and renames it: the numbers in that name are known only when the machine runs.
"""

from __future__ import annotations

from pathlib import Path

SOCKET_NAME, SERVICE_NAME = "pycni-warm.socket", "pycni-warm.service"
FOLDER = Path("/etc/systemd/system")
BOUND = "/run/pycni/warm/systemd.sock"
# Where the socket went: after an upgrade the launcher names another one.
NOTE = "/run/pycni/warm/systemd.path"

_SOCKET = """\
[Unit]
Description=Socket of the warm server of pycni, for container networks
Before=containerd.service crio.service kubelet.service

[Socket]
ListenSequentialPacket={bound}
SocketMode=0600
DirectoryMode=0700
Backlog=1024
ExecStartPost=/bin/sh -c 'exec {launcher} --warm-socket > {note}'
ExecStartPost=/bin/sh -c 'exec mv -fT {bound} "$$(cat {note})"'
ExecStopPost=/bin/sh -c 'exec rm -f "$$(cat {note})" {note}'

[Install]
WantedBy=sockets.target
"""

# No options that confine: they would put the server into namespaces where no caller finds it.
_SERVICE = """\
[Unit]
Description=Warm server of pycni, for container networks
Requires=pycni-warm.socket

[Service]
ExecStart={launcher} --warm-server
# Workers in the middle of a call finish it, and end.
KillMode=process
OOMScoreAdjust=-500

[Install]
# From boot on, so that the first call is served warm.
WantedBy=multi-user.target
"""


def units(launcher: Path) -> dict[str, str]:
    """Give the texts by file name; `launcher` is an installed plugin, such as /opt/cni/bin/loopback."""
    return {
        SOCKET_NAME: _SOCKET.format(bound=BOUND, note=NOTE, launcher=launcher),
        SERVICE_NAME: _SERVICE.format(launcher=launcher),
    }
