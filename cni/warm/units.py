"""systemd units for the warm server, which give it a control group of its own.

systemd binds the socket under a fixed name. It runs a launcher, which prints the path that callers use, and
renames the socket to it. That path contains numbers that are known only at run time.
"""

from __future__ import annotations

from pathlib import Path

SOCKET_NAME, SERVICE_NAME = "pycni-warm.socket", "pycni-warm.service"
FOLDER = Path("/etc/systemd/system")
BOUND = "/run/pycni/warm/systemd.sock"
# The file with the socket's path: after an upgrade the launcher prints another one.
SOCKET_PATH_FILE = "/run/pycni/warm/systemd.path"

_SOCKET = """\
[Unit]
Description=Socket of the warm server of pycni, for container networks
Before=containerd.service crio.service kubelet.service

[Socket]
ListenSequentialPacket={bound}
SocketMode=0600
DirectoryMode=0700
Backlog=1024
ExecStartPost=/bin/sh -c 'exec {launcher} --warm-socket > {path_file}'
ExecStartPost=/bin/sh -c 'exec mv -fT {bound} "$$(cat {path_file})"'
ExecStopPost=/bin/sh -c 'exec rm -f "$$(cat {path_file})" {path_file}'

[Install]
WantedBy=sockets.target
"""

# No sandboxing options: they put the server into other namespaces, where callers do not find it.
_SERVICE = """\
[Unit]
Description=Warm server of pycni, for container networks
Requires=pycni-warm.socket

[Service]
ExecStart={launcher} --warm-server
# A worker finishes the call that it serves, and ends.
KillMode=process
OOMScoreAdjust=-500

[Install]
# Starts at boot, so that a worker serves the first call.
WantedBy=multi-user.target
"""


def units(launcher: Path) -> dict[str, str]:
    """Return the units by file name; `launcher` is an installed plugin, such as /opt/cni/bin/loopback."""
    return {
        SOCKET_NAME: _SOCKET.format(bound=BOUND, path_file=SOCKET_PATH_FILE, launcher=launcher),
        SERVICE_NAME: _SERVICE.format(launcher=launcher),
    }
