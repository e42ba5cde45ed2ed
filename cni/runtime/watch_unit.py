"""The systemd unit of `pycni watch`. An installation writes it; the administrator enables it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

NAME = "pycni-watch.service"

# After the programs that load rules at boot. No sandboxing options: they hide namespaces of containers.
_SERVICE = """\
[Unit]
Description=Repair of container networks when rules or links disappear
After=network-pre.target firewalld.service nftables.service netfilter-persistent.service

[Service]
ExecStart={command} watch
Restart=on-failure
# A plugin that is repairing finishes, and servers that it has started stay.
KillMode=process
RestartSec=1s
MemoryMax=256M
OOMScoreAdjust=-500

[Install]
WantedBy=multi-user.target
"""


def units(command: Path) -> dict[str, str]:
    """Return the unit by file name; `command` is the installed `pycni`."""
    return {NAME: _SERVICE.format(command=command)}
